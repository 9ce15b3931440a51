// Judge an AsyncAPI document: node check_async_api.cjs PACKAGES DOCUMENT. Print what AsyncAPI's parser finds.
const path = require("node:path");
const { createRequire } = require("node:module");

const [packages, file] = process.argv.slice(2);
const { Parser, fromFile } = createRequire(path.join(packages, "here.js"))("@asyncapi/parser");

function described(document) {
  const messages = document.allMessages().all();
  return {
    operations: document.operations().all().map((operation) => operation.id()),
    fields: Object.fromEntries(
      messages.map((message) => [message.id(), Object.keys(message.payload()?.json().properties ?? {})]),
    ),
  };
}

async function main() {
  const { document, diagnostics } = await fromFile(new Parser(), file).parse();
  const findings = diagnostics.map(({ code, message, severity }) => ({ code, message, severity }));
  console.log(JSON.stringify({ document: document ? described(document) : null, findings }));
}

main();
