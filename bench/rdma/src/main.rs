//! The benchmark as a program of its own, for guests of the lab: the suite, which has it too, links ISA-L.

use clap::Parser;

#[derive(Parser)]
#[command(about = "S3 over RDMA beside perftest, on one device (docs/BENCHMARKS.md)")]
struct Program {
    #[command(flatten)]
    arguments: penstock_bench_rdma::Arguments,
}

fn main() -> std::process::ExitCode {
    match penstock_bench_rdma::run(&Program::parse().arguments) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("penstock bench rdma: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
