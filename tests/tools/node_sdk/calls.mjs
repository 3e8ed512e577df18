// Lists, gets and invokes functions through the AWS SDK for JavaScript, in Node.js and in browsers.
import {
  GetFunctionCommand,
  InvokeCommand,
  InvokeWithResponseStreamCommand,
  LogType,
  ResourceNotFoundException,
  paginateListFunctions,
  waitUntilFunctionActiveV2,
} from "@aws-sdk/client-lambda";

export async function calls(client, name, language) {
  const listed = [];
  for await (const page of paginateListFunctions({ client, pageSize: 1 }, {})) {
    listed.push(...page.Functions.map((one) => one.FunctionName));
  }

  await waitUntilFunctionActiveV2({ client, maxWaitTime: 30 }, { FunctionName: name });
  const { Configuration, Code } = await client.send(new GetFunctionCommand({ FunctionName: name }));

  const invoke = (event, more = {}) =>
    client.send(new InvokeCommand({ FunctionName: name, Payload: JSON.stringify(event), ...more }));
  const answer = await invoke({ name: language }, { LogType: LogType.Tail });
  const failed = await invoke({ fail: "as asked" });

  const stream = { FunctionName: name, Payload: JSON.stringify({ name: language }) };
  const { EventStream } = await client.send(new InvokeWithResponseStreamCommand(stream));
  let streamed = "";
  let complete = false;
  for await (const event of EventStream) {
    streamed += new TextDecoder().decode(event.PayloadChunk?.Payload);
    complete ||= event.InvokeComplete !== undefined;
  }

  const missing = await client.send(new GetFunctionCommand({ FunctionName: "missing" })).catch((error) => error);

  return {
    listed,
    handler: Configuration.Handler,
    memory_mb: Configuration.MemorySize,
    variables: Configuration.Environment.Variables,
    location: Code.Location,
    status: answer.StatusCode,
    version: answer.ExecutedVersion,
    log_base64: answer.LogResult,
    result: JSON.parse(answer.Payload.transformToString()),
    streamed: complete ? JSON.parse(streamed) : `cut short: ${streamed}`,
    function_error: failed.FunctionError,
    failure: JSON.parse(failed.Payload.transformToString()),
    missing: {
      typed: missing instanceof ResourceNotFoundException,
      status: missing.$metadata?.httpStatusCode,
      code: missing.name,
      message: missing.message,
    },
  };
}
