//! A tree of files in one input: the first file, then more, each behind a line `=== path`.

use basalt::lang::root::Memory;

pub fn files(text: &str, first: &str) -> Memory {
    let mut files = Memory::default();
    let (mut path, mut body) = (first.to_owned(), String::new());
    for line in text.split_inclusive('\n') {
        match line.strip_prefix("=== ") {
            Some(next) => {
                files.0.insert(path, std::mem::take(&mut body).into_bytes());
                path = next.trim().to_owned();
            }
            None => body.push_str(line),
        }
    }
    files.0.insert(path, body.into_bytes());
    files
}
