// Upload, search and recommend with the client of @hey-api/openapi-ts.
import { client } from "./hey-api/client.gen.js";
import { recommend, search, upload } from "./hey-api/index.js";

const [address, contentId] = process.argv.slice(2);
client.setConfig({ baseUrl: address });

const metadata = { made_by: contentId, price: 49.5, in_stock: true };
const published = await upload({
  body: { content_id: contentId, content: { text: "a red shoe" }, metadata },
  query: { wait: "searchable", timeout_ms: 60_000 },
  throwOnError: true,
});

const filter = { must: [{ field: "metadata.made_by", equals: contentId }] };
const found = await search({ body: { text: "a red shoe", filter, include: ["metadata"] }, throwOnError: true });
const recommended = await recommend({ body: { positive: [{ content_id: contentId }] }, throwOnError: true });

const refused = await search({ body: { k: 3 } });

const hits = found.data.results.text?.hits ?? [];
console.log(JSON.stringify({
  offset: published.data.offset,
  found: hits.map((hit) => hit.content_id),
  price: hits[0].metadata?.["price"],
  recommended: recommended.data.results.text?.hits.length,
  refused: refused.error?.error.code,
}));
