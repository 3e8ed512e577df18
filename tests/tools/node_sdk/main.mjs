// What it saw goes to stdout as one JSON object.
import { LambdaClient } from "@aws-sdk/client-lambda";
import { calls } from "./calls.mjs";

console.log(JSON.stringify(await calls(new LambdaClient(), process.argv[2], "JavaScript")));
