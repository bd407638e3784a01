//! The controller's program: parse, dispatch, exit code. Everything is in `basalt::cli`.

fn main() -> std::process::ExitCode {
    basalt::cli::main()
}
