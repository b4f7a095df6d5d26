# What CONTRIBUTING.md describes. Everything is built with the one profile, release.
.PHONY: build check test test-ui bench bench-peers golden fuzz chaos soak venv clean

VENV = target/venv
PEERS_VENV = target/peers-venv

build:
	cargo build --release

check:
	cargo fmt --check
	cargo clippy --release --all-targets -- -D warnings
	@if cargo deny --version >/dev/null 2>&1; then cargo deny check; \
	else echo "cargo-deny is not installed: licences and advisories are not checked"; fi

test: venv
	cargo test --release

# The page in headless Chromium (apt-get install chromium); `scripts/test-ui --pictures docs` takes its pictures.
test-ui: build
	scripts/test-ui

bench:
	cargo bench --bench decode

# Beside DuckDB, ClickHouse, Polars and others; ARGS='--only copy' is one job, ARGS=--help lists what there is.
bench-peers: build $(PEERS_VENV)/installed
	PYTHONPATH=benches $(PEERS_VENV)/bin/python -m peers $(ARGS)

# Missing expectations are written; read them before you commit.
golden:
	PIPELINE_GOLDEN=write cargo test --release --lib golden

fuzz:
	@for target in decode frame log_type; do \
	  cargo +nightly fuzz run $$target -- -max_total_time=60 || exit 1; \
	done

# The long kill campaign and the inputs that take minutes. One test at a time: each wants the whole machine.
chaos: venv
	PIPELINE_CHAOS_KILLS=50 PIPELINE_CHAOS_LINES=2000000 \
	  cargo test --release --test it -- --nocapture --test-threads=1 killed
	PIPELINE_CHAOS_KILLS=50 PIPELINE_SHUFFLES=100 \
	  cargo test --release --test it -- --nocapture --test-threads=1 serve::load
	PIPELINE_CHAOS_FAULTS=200 cargo test --release --test it -- --nocapture --test-threads=1 campaign
	PIPELINE_HOSTS_ROUNDS=20 PIPELINE_CLUSTER_FAULTS=20 \
	  cargo test --release --test it -- --nocapture --test-threads=1 hosts:: cluster::
	PIPELINE_CHAOS_TASKS=10000 PIPELINE_CHAOS_TASK_KILLS=50 PIPELINE_CHAOS_LATENCY=1 \
	  cargo test --release --test it -- --nocapture --test-threads=1 tasks::campaign
	PIPELINE_CLUSTER_KILLS=50 cargo test --release --test it -- --nocapture --test-threads=1 cluster_query
	cargo test --release --test it -- --nocapture --ignored 2_gib
	PIPELINE_FETCH_FILES=1000 PIPELINE_FETCH_KILLS=50 cargo test --release --test it -- --nocapture --test-threads=1 fetch

# Half an hour: memory of `pipeline serve` at full speed, without its sinks, and with hostile keys.
soak: build
	python3 benches/soak.py

venv: $(VENV)/installed

$(VENV)/installed: tests/reference/requirements.txt
$(PEERS_VENV)/installed: benches/peers/requirements.txt
$(VENV)/installed $(PEERS_VENV)/installed:
	python3 -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

clean:
	cargo clean
	rm -rf $(VENV) $(PEERS_VENV)
