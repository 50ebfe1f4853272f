"""Pictures of records: originals, steps, stored samples; as a sheet or as blocks on a terminal."""
