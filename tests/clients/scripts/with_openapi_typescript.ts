// Upload, search and recommend with the types of openapi-typescript, through openapi-fetch.
import createClient from "openapi-fetch";
import type { paths } from "./openapi-typescript.js";

const [address, contentId] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl: address });

const metadata = { made_by: contentId, price: 49.5, in_stock: true };
const published = await client.POST("/v1/contents", {
  body: { content_id: contentId, content: { text: "a red shoe" }, metadata },
  params: { query: { wait: "searchable", timeout_ms: 60_000 } },
});

const filter = { must: [{ field: "metadata.made_by", equals: contentId }] };
const found = await client.POST("/v1/search", { body: { text: "a red shoe", filter, include: ["metadata"] } });
const recommended = await client.POST("/v1/recommend", { body: { positive: [{ content_id: contentId }] } });

const refused = await client.POST("/v1/search", { body: { k: 3 } });

const hits = found.data?.results.text?.hits ?? [];
console.log(JSON.stringify({
  offset: published.data?.offset,
  found: hits.map((hit) => hit.content_id),
  price: hits[0].metadata?.["price"],
  recommended: recommended.data?.results.text?.hits.length,
  refused: refused.error?.error.code,
}));
