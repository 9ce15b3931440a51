"""The engine for vectors beyond one machine: an index in OpenSearch k-NN, a document for each content."""
