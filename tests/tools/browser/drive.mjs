// Opens pages in Chromium, one after the other: drive.mjs EXECUTABLE SWITCHES URL... Prints what each has in window.saw,
// or the status of what has no script, as one JSON list.
import { chromium } from "playwright-core";

const [executablePath, switches, ...urls] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: JSON.parse(switches) });
try {
  const saw = [];
  for (const url of urls) {
    const page = await browser.newPage();
    const answer = await page.goto(url);
    if (answer.headers()["content-type"].startsWith("text/html")) {
      await page.waitForFunction(() => "saw" in window);
      saw.push(await page.evaluate(() => window.saw));
    } else {
      saw.push({ status: answer.status(), body: await answer.text() });
    }
    await page.close();
  }
  console.log(JSON.stringify(saw));
} finally {
  await browser.close();
}
