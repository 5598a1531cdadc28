//! `cargo run --release -p penstock-bench-load --example s3_load -- --endpoint http://127.0.0.1:9000 --mix get`
#![allow(clippy::print_stdout, reason = "a program for people: it prints")]

use clap::Parser;

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    load: penstock_bench_load::LoadArguments,
}

#[tokio::main]
async fn main() {
    match Arguments::parse().load.run().await {
        Ok(report) => report.rows().iter().for_each(|row| println!("{row}")),
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    }
}
