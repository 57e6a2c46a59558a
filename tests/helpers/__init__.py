"""What several tests share: tiny models, corpora, files, servers."""
