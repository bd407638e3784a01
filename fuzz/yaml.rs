//! The YAML reader: any text is data or an error with a place, and data that is written down reads back the same.
#![no_main]

use basalt::lang::jinja::dump;
use basalt::yaml;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match yaml::load_spanned(text, "a.sls") {
        Ok(node) => {
            let value = node.into_value();
            if let Ok(written) = dump::yaml(&value, None, true) {
                // What is written must be readable; that it is the same is for tests with known answers (NaN is not itself).
                assert!(yaml::load(&written, "written").is_ok(), "{written:?}");
            }
        }
        Err(error) => assert!(error.span.is_some_and(|span| span.line > 0), "no place"),
    }
});
