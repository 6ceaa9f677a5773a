//! The `portcullis` program.

fn main() -> std::process::ExitCode {
    portcullis::cli::main(portcullis::filters::builtin())
}
