// Upload, search and recommend with the client of openapi-generator's typescript-axios generator.
import { isAxiosError } from "axios";
import { Configuration, ContentsApi, SearchApi } from "./typescript-axios/index.js";

const [address, contentId] = process.argv.slice(2);
const configuration = new Configuration({ basePath: address });
const contents = new ContentsApi(configuration);
const searches = new SearchApi(configuration);

const metadata = { made_by: contentId, price: 49.5, in_stock: true };
const upload = { content_id: contentId, content: { text: "a red shoe" }, metadata };
const published = (await contents.upload(upload, "searchable", 60_000)).data;

const filter = { must: [{ field: "metadata.made_by", equals: contentId }] };
const found = (await searches.search({ text: "a red shoe", filter, include: ["metadata"] })).data;
const recommended = (await searches.recommend({ positive: [{ content_id: contentId }] })).data;

const refused = await searches.search({ k: 3 }).catch((error: unknown) => error);

const hits = found.results.text?.hits ?? [];
console.log(JSON.stringify({
  offset: published.offset,
  found: hits.map((hit) => hit.content_id),
  price: hits[0].metadata?.["price"],
  recommended: recommended.results.text?.hits.length,
  refused: isAxiosError(refused) ? refused.response?.data.error.code : "",
}));
