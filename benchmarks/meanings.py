"""What each figure means for a user, in one sentence or two."""

MEANINGS = {
    "bit_flips": (
        "How many damaged files (a flipped bit, a cut) the services refuse by name, of those tried. "
        "Each of the others could lead to wrong answers."
    ),
    "commit_cost": (
        "Whether commits become slower as the index grows: the time of a commit with 200,000 rows in the "
        "index ÷ that with 20,000."
    ),
    "crash": (
        "Writers were killed and power cuts simulated. The counts are crashes after which the index had "
        "lost, doubled or changed a content; `recovery` is the restart time with 200,000 rows "
        "÷ that with 10,000."
    ),
    "decode": (
        "How many times faster than a full decode and open_clip's own transform a photograph is prepared "
        "for the encoder."
    ),
    "encode_images": "How many times faster than open_clip in fp32 pictures are encoded on the same machine.",
    "encode_texts": "How many times faster than open_clip in fp32 texts are encoded, one or 32 at a time.",
    "filtered_search": (
        "What filters and deleted rows cost: `recall` is the share of the true ten best that is found, "
        "`ratio` the time ÷ that of an exact scan of the rows that pass (before 2026-11-29: ÷ that of a "
        "search without filter), both for the worst filter."
    ),
    "freshness": (
        "Seconds until an acknowledged upload is in an answer; `p99_at_50` is at 50 % of the highest "
        "upload rate. `ratio` compares an index of 200,000 rows with one of 20,000."
    ),
    "hostile": (
        "What good clients notice of 5 % poison records and 500 slow connections: their uploads a second, "
        "the p99 of their queries and the memory of the services, each ÷ that without attackers."
    ),
    "intake": (
        "The records a second that all stages except the encoder handle ÷ those that the encoder handles."
    ),
    "kept_under_ingest": (
        "What a query costs while 500 or 1,000 vectors a second are indexed ÷ what it costs while none are: "
        "CPU time and p99, with a processor of its own for the query service. `in_no_lists` is the growth of "
        "the rows that every search scans one by one."
    ),
    "memory": (
        "Memory of each service in MB with the model ViT-B-32, beside files of the index and of the weights, "
        "which are shared: with an empty index, and what 1,000,000 contents add. With weights of its own "
        "(`CLIPTIDE_ENCODER__SHARED_WEIGHTS` unset) each service holds 300 MB more."
    ),
    "new_filter": (
        "The CPU time of a search with a filter that was not asked before ÷ that of the same search again, "
        "for the worst filter."
    ),
    "peers": (
        "CPU time that answering a query takes here ÷ that of the cheaper of Chroma's server and LanceDB "
        "(`of_server`), and ÷ that of hnswlib behind a bare handler (`of_floor`): 50,000 rows, recall 0.99, "
        "for the worse kind of data."
    ),
    "pipeline": (
        "How much of the machine's own limit the consumer reaches with pictures of 320 × 240 and 1024 × 768, "
        "and how many times faster than a simple loop of Pillow, open_clip and a flat index it is."
    ),
    "query_text": (
        "`latency` is the time of a text query through HTTP ÷ the time that encoding its text takes. "
        "`speed_up` is how many times more queries are answered when 16 clients ask at once; "
        "`encoder_speed_up` is what the encoder alone gains by a batch of 16 texts, which bounds it."
    ),
    "growth": (
        "What ten times the rows cost in CPU and memory: a query, opening, a takeover, a merge of each "
        "shard, and a commit of 100 rows with the reload after it. `rows` is the larger size. "
        "With fewer than 10 million the target counts as missed."
    ),
    "recall": (
        "The share of the true ten best contents that a search finds, for the worst kind of query and data. "
        "`best` is how often the best one is found, `far` the share for queries that are unlike everything."
    ),
    "reload": (
        "`p99_ms` is the time from a commit to the first answer that shows it; `ratio` compares 200,000 rows "
        "with 20,000. The others say what queries notice when a merge is taken in: p99, wait, memory."
    ),
    "republish": (
        "CPU time of the consumer for a second upload of unchanged contents ÷ that of their first upload, "
        "for texts of ten words and for pictures of 320 × 240, of 20,000 contents together."
    ),
    "search": (
        "How many times faster than an exact scan in fp32 a search is, at 100,000 and at 1,000,000 rows."
    ),
    "segment_tax": (
        "What eight segments a shard cost against one: `ratio` of the search times. `bytes` is the size on "
        "disk ÷ the raw fp32 embeddings; `amplification` says how often merging writes each byte."
    ),
    "served_cost": (
        "CPU time that serving a query adds to the search itself ÷ what aiohttp alone takes for a request, "
        "singly and in batches of 16. Queries a second are measured with 1,000,000 rows."
    ),
    "shard_tax": "The search time of four shards ÷ that of one shard with the same rows.",
    "slow_disk": (
        "How much later an upload is found on a slow disk: the median time from its acknowledgement to the "
        "first answer with it, if each fsync takes 5 ms longer, ÷ that without. The encoder takes no time."
    ),
    "start": "CPU seconds that each service takes from its start until it is ready, with the model ViT-B-32.",
    "trace_cost": (
        "What traces cost the consumer: records a second of CPU time ÷ those of a consumer that "
        "traces nothing, for records without a trace context, with one that is not sampled, and with one "
        "that is."
    ),
}
