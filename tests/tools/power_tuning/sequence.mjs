// The calls that aws-lambda-power-tuning 4 makes, in its order, through the same SDK; none of its code. sequence.mjs ARN
// POWERS prints what it measured as one JSON object. The configurations are made twice, so that aliases are updated too.
import {
  CreateAliasCommand,
  DeleteAliasCommand,
  DeleteFunctionCommand,
  GetAliasCommand,
  GetFunctionConfigurationCommand,
  InvokeCommand,
  LambdaClient,
  PublishVersionCommand,
  ResourceNotFoundException,
  UpdateAliasCommand,
  UpdateFunctionConfigurationCommand,
  waitUntilFunctionActive,
  waitUntilFunctionUpdated,
} from "@aws-sdk/client-lambda";

const FunctionName = process.argv[2];
const powers = JSON.parse(process.argv[3]);
const client = new LambdaClient({ region: FunctionName.split(":")[3] });
const call = (Command, parameters) => client.send(new Command({ FunctionName, ...parameters }));
const aliasOf = (power) => `RAM${power}`;

async function configure(MemorySize, Description, alias) {
  await call(UpdateFunctionConfigurationCommand, { MemorySize, Description });
  await waitUntilFunctionUpdated({ client, minDelay: 1, maxWaitTime: 60 }, { FunctionName });
  const { Version } = await call(PublishVersionCommand);
  if (alias === undefined) {
    return "restored";
  }
  try {
    await call(GetAliasCommand, { Name: alias });
  } catch (error) {
    if (!(error instanceof ResourceNotFoundException)) {
      throw error;
    }
    await call(CreateAliasCommand, { Name: alias, FunctionVersion: Version });
    return "created";
  }
  await call(UpdateAliasCommand, { Name: alias, FunctionVersion: Version });
  return "updated";
}

async function measure(power) {
  const alias = aliasOf(power);
  const { Architectures, State, MemorySize } = await call(GetFunctionConfigurationCommand, { Qualifier: alias });
  if (State === "Pending") {
    await waitUntilFunctionActive({ client, maxDelay: 900, maxWaitTime: 60 }, { FunctionName, Qualifier: alias });
  }
  const durations = [];
  const results = [];
  for (let run = 0; run < 5; run++) {
    const answer = await call(InvokeCommand, { Qualifier: alias, Payload: JSON.stringify({ run }), LogType: "Tail" });
    const report = Buffer.from(answer.LogResult, "base64").toString().split("\tDuration: ")[1];
    durations.push(parseFloat(report));
    results.push({ ...JSON.parse(answer.Payload.transformToString()), version: answer.ExecutedVersion });
  }
  return { alias, architecture: Architectures[0], memory_mb: MemorySize, durations, results };
}

async function clean(power) {
  const { FunctionVersion } = await call(GetAliasCommand, { Name: aliasOf(power) });
  await call(DeleteAliasCommand, { Name: aliasOf(power) });
  await call(DeleteFunctionCommand, { Qualifier: FunctionVersion });
}

const before = await call(GetFunctionConfigurationCommand, { Qualifier: "$LATEST" });
const made = [];
for (const round of ["first", "second"]) {
  for (const power of powers) {
    made.push(await configure(power, `${before.Description} - ${round} ${aliasOf(power)}`, aliasOf(power)));
  }
}
made.push(await configure(before.MemorySize, before.Description));
const measured = await Promise.all(powers.map(measure));
await Promise.all(powers.map(clean));
console.log(JSON.stringify({ made, measured }));
