//! Paths: what is canonical stays as it is, and holds nothing that could be read in another way.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::types::NormalPath;

fuzz_target!(|raw: &str| {
    let Ok(path) = NormalPath::parse(raw) else { return };
    let path = path.as_str();
    assert!(path.starts_with('/') && !path.contains("//"), "{path}");
    assert!(path.split('/').all(|segment| !matches!(segment, "." | "..")), "{path}");
    assert!(path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\\".contains(&byte)), "{path}");
    assert_eq!(NormalPath::parse(path).map(|again| again.as_str().to_owned()), Ok(path.to_owned()));
});
