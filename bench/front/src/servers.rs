//! The small servers: the floor, and the library alone.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::dto::{GetObjectInput, GetObjectOutput, StreamingBlob};
use s3s::service::S3ServiceBuilder;
use s3s::{S3, S3Request, S3Response, S3Result};
use tokio::net::TcpListener;

use crate::{Failure, OBJECT_BYTES};

pub(crate) const ACCESS_KEY: &str = "BENCHACCESSKEY222222";
pub(crate) const SECRET_KEY: &str = "bench/secret/bench/secret/bench/secret22";

struct InMemory(Bytes);

#[async_trait::async_trait]
impl S3 for InMemory {
    async fn get_object(&self, _: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        Ok(S3Response::new(GetObjectOutput {
            body: Some(StreamingBlob::from(self.0.clone())),
            content_length: Some(OBJECT_BYTES as i64),
            ..GetObjectOutput::default()
        }))
    }
}

/// Serves until killed; prints its address first.
pub(crate) async fn serve(which: &str) -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let object = Bytes::from(vec![b'x'; OBJECT_BYTES]);
    let mut builder = S3ServiceBuilder::new(InMemory(object.clone()));
    builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
    let library = builder.build();
    let bare = match which {
        "hyper" => true,
        "s3s" => false,
        other => return Err(format!("no such server: {other}").into()),
    };
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let http = hyper::server::conn::http1::Builder::new();
        if bare {
            let object = object.clone();
            let answer = service_fn(move |_: Request<Incoming>| {
                let object = object.clone();
                async move { Ok::<_, Infallible>(Response::new(Full::new(object))) }
            });
            tokio::spawn(http.serve_connection(TokioIo::new(stream), answer));
        } else {
            tokio::spawn(http.serve_connection(TokioIo::new(stream), library.clone()));
        }
    }
}
