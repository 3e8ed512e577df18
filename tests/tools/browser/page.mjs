// A page that calls the daemon through the SDK; the fragment of its address says where that is. window.saw is what it saw.
import { LambdaClient } from "@aws-sdk/client-lambda";
import { calls } from "./calls.mjs";

const [endpoint, name] = location.hash.slice(1).split(",");
const client = new LambdaClient({
  endpoint,
  region: "us-east-1",
  credentials: { accessKeyId: "test", secretAccessKey: "test" },
  maxAttempts: 1,
});

try {
  window.saw = await calls(client, name, "Chromium");
} catch (error) {
  window.saw = { error: String(error) };
}
