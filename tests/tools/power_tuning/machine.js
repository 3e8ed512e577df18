// The state machine of aws-lambda-power-tuning 3.2 around its own handlers: machine.js HANDLERS INPUT prints what the
// analyzer found and what the executors measured, as one JSON object.
//
// That release is of 2020, when a function could be published while its update was under way. Since then one has to wait
// for the end of the update, as later releases do: so does the step that is put around setLambdaPower here.
"use strict";
const path = require("node:path");
const AWS = require("aws-sdk");

const handlers = path.resolve(process.argv[2]);
const input = JSON.parse(process.argv[3]);

console.log = console.error; // the handlers talk; stdout is for the result
AWS.config.update({ endpoint: process.env.AWS_ENDPOINT_URL });
Object.assign(process.env, {
  defaultPowerValues: "128,256,512",
  minRAM: "128",
  baseCosts: '{"default": 2.083e-7}',
  visualizationURL: "https://tuning.example/",
});

const utils = require(path.join(handlers, "utils"));
const setLambdaPower = utils.setLambdaPower;
utils.setLambdaPower = async (lambdaARN, value) => {
  await setLambdaPower(lambdaARN, value);
  const lambda = utils.lambdaClientFromARN(lambdaARN);
  await lambda.waitFor("functionUpdated", { FunctionName: lambdaARN, $waiter: { delay: 0.1 } }).promise();
};

const step = (name, event) => require(path.join(handlers, name)).handler(event, {});

(async () => {
  const powerValues = await step("initializer", input);
  const stats = await Promise.all(powerValues.map((value) => step("executor", { ...input, value })));
  await step("cleaner", { ...input, powerValues });
  const best = await step("analyzer", { ...input, stats });
  process.stdout.write(JSON.stringify({ best, stats }));
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
