"""Reading and publishing records, through Kafka or in memory. Records are bytes here: no schema is known."""
