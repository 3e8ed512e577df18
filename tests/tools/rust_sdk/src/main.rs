//! Lists, gets and invokes functions through the AWS SDK for Rust; what it saw goes to stdout as one JSON object.

use aws_config::BehaviorVersion;
use aws_sdk_lambda::client::Waiters;
use aws_sdk_lambda::error::ProvideErrorMetadata;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::{InvokeWithResponseStreamResponseEvent as StreamEvent, LogType};
use serde_json::{Value, json};
use std::time::Duration;

type Failure = Box<dyn std::error::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let name = std::env::args().nth(1).ok_or("the name of a function is missing")?;
    let http = aws_smithy_http_client::Builder::new().build_http();
    let settings = aws_config::defaults(BehaviorVersion::latest()).http_client(http).load().await;
    let client = aws_sdk_lambda::Client::new(&settings);

    let mut listed = Vec::new();
    let mut pages = client.list_functions().into_paginator().page_size(1).send();
    while let Some(page) = pages.next().await {
        listed.extend(page?.functions().iter().filter_map(|one| one.function_name().map(String::from)));
    }

    client.wait_until_function_active_v2().function_name(&name).wait(Duration::from_secs(30)).await?;
    let found = client.get_function().function_name(&name).send().await?;
    let configuration = found.configuration().ok_or("no configuration")?;

    let event = json!({"name": "Rust"}).to_string();
    let answer = client
        .invoke()
        .function_name(&name)
        .log_type(LogType::Tail)
        .payload(Blob::new(event))
        .send()
        .await?;
    let result: Value = serde_json::from_slice(answer.payload().ok_or("no payload")?.as_ref())?;

    let failing = json!({"fail": "as asked"}).to_string();
    let failed = client.invoke().function_name(&name).payload(Blob::new(failing)).send().await?;
    let failure: Value = serde_json::from_slice(failed.payload().ok_or("no payload")?.as_ref())?;

    let event = json!({"name": "Rust"}).to_string();
    let mut streaming =
        client.invoke_with_response_stream().function_name(&name).payload(Blob::new(event)).send().await?;
    let mut streamed = Vec::new();
    let mut complete = false;
    while let Some(event) = streaming.event_stream.recv().await? {
        match event {
            StreamEvent::PayloadChunk(chunk) => streamed.extend(chunk.payload().map(Blob::as_ref).unwrap_or_default()),
            StreamEvent::InvokeComplete(_) => complete = true,
            _ => {}
        }
    }
    if !complete {
        return Err("the stream was cut short".into());
    }
    let streamed: Value = serde_json::from_slice(&streamed)?;

    let refused = client.get_function().function_name("missing").send().await.err().ok_or("it is there")?;
    let status = refused.raw_response().map(|response| response.status().as_u16());
    let error = refused.into_service_error();

    let saw = json!({
        "listed": listed,
        "handler": configuration.handler(),
        "memory_mb": configuration.memory_size(),
        "variables": configuration.environment().and_then(|one| one.variables()),
        "location": found.code().and_then(|code| code.location()),
        "status": answer.status_code(),
        "version": answer.executed_version(),
        "log_base64": answer.log_result(),
        "result": result,
        "streamed": streamed,
        "function_error": failed.function_error(),
        "failure": failure,
        "missing": {
            "typed": error.is_resource_not_found_exception(),
            "status": status,
            "code": error.code(),
            "message": error.message(),
        },
    });
    println!("{saw}");
    Ok(())
}
