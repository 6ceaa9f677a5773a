//! The `portcullis` program.

/// The program's allocator. The library leaves the choice to whoever embeds it.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    portcullis::cli::main(portcullis::filters::builtin())
}
