"""Raw data in, processed data out."""
