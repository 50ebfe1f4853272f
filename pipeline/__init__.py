"""GNT archives in, TFRecord shards and a Parquet manifest out."""
