-- The database of gatewayd. Made by gwgen from schema/*.def; not edited by hand.
-- Run in one transaction, with foreign_keys on.
PRAGMA application_id = 1735877730;
PRAGMA user_version = 6;

-- One row per change of the configuration.
CREATE TABLE revision (
	n INTEGER PRIMARY KEY CHECK (n > 0),
	created_at INTEGER NOT NULL, -- seconds since 1970, UTC
	actor TEXT NOT NULL,
	summary TEXT NOT NULL,
	config_hash TEXT
) STRICT;

-- Single values that are no resource.
CREATE TABLE meta (
	key TEXT PRIMARY KEY NOT NULL,
	value TEXT NOT NULL
) STRICT;

-- The rows that a revision changed, as JSON: before is null for a new one, after for a deleted one.
-- With row ids: without them each row is part of a key, and a key is read as a whole to be compared.
CREATE TABLE revision_change (
	revision INTEGER NOT NULL REFERENCES revision(n) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
	position INTEGER NOT NULL,
	resource TEXT NOT NULL,
	name TEXT NOT NULL,
	before TEXT,
	after TEXT,
	PRIMARY KEY (revision, position)
) STRICT;

-- Every write that was asked for, also the refused ones.
CREATE TABLE audit (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	at INTEGER NOT NULL, -- seconds since 1970, UTC
	actor TEXT NOT NULL,
	method TEXT NOT NULL,
	path TEXT NOT NULL,
	status INTEGER NOT NULL,
	revision INTEGER NOT NULL,
	detail TEXT NOT NULL
) STRICT;

-- Who is shut out, and until when.
CREATE TABLE ban (
	prefix TEXT PRIMARY KEY,
	reason TEXT NOT NULL,
	actor TEXT NOT NULL,
	rate_limit TEXT NOT NULL, -- by which; empty: by hand
	created_at INTEGER NOT NULL, -- seconds since 1970, UTC
	expires_at INTEGER, -- NULL: when it is lifted
	placement TEXT NOT NULL CHECK (placement IN ('nft', 'xdp')) -- xdp: at the prefilters too
) STRICT, WITHOUT ROWID;

-- Pools of targets that listeners relay to.
CREATE TABLE upstream (
	id INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 4294967295),
	revision INTEGER NOT NULL CHECK (revision >= 0),
	name TEXT NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 63 AND name NOT GLOB '*[^a-z0-9-]*' AND name NOT GLOB '-*' AND name NOT GLOB '*-'),
	comment TEXT NOT NULL DEFAULT '' CHECK (length(CAST(comment AS BLOB)) <= 255),
	algorithm TEXT NOT NULL DEFAULT 'round_robin' CHECK (algorithm IN ('round_robin', 'least_conn', 'random_two', 'source_hash')),
	health_type TEXT NOT NULL DEFAULT 'none' CHECK (health_type IN ('none', 'tcp', 'http')),
	health_interval_ms INTEGER NOT NULL DEFAULT 5000 CHECK (health_interval_ms BETWEEN 100 AND 600000),
	health_timeout_ms INTEGER NOT NULL DEFAULT 1000 CHECK (health_timeout_ms BETWEEN 10 AND 60000),
	health_rise INTEGER NOT NULL DEFAULT 2 CHECK (health_rise BETWEEN 1 AND 100),
	health_fall INTEGER NOT NULL DEFAULT 3 CHECK (health_fall BETWEEN 1 AND 100),
	health_http_path TEXT NOT NULL DEFAULT '/' CHECK (length(CAST(health_http_path AS BLOB)) <= 255),
	health_http_status INTEGER NOT NULL DEFAULT 0 CHECK (health_http_status BETWEEN 0 AND 599),
	health_http_status_max INTEGER NOT NULL DEFAULT 0 CHECK (health_http_status_max BETWEEN 0 AND 599),
	health_http_method TEXT NOT NULL DEFAULT 'GET' CHECK (health_http_method IN ('GET', 'HEAD')),
	health_http_host TEXT NOT NULL DEFAULT '' CHECK (length(CAST(health_http_host AS BLOB)) <= 255),
	health_http_body TEXT NOT NULL DEFAULT '' CHECK (length(CAST(health_http_body AS BLOB)) <= 255),
	health_port INTEGER NOT NULL DEFAULT 0 CHECK (health_port BETWEEN 0 AND 65535),
	quorum INTEGER NOT NULL DEFAULT 1 CHECK (quorum BETWEEN 1 AND 1024),
	max_retries INTEGER NOT NULL DEFAULT 0 CHECK (max_retries BETWEEN 0 AND 10),
	passive_failures INTEGER NOT NULL DEFAULT 0 CHECK (passive_failures BETWEEN 0 AND 1000),
	slow_start_s INTEGER NOT NULL DEFAULT 0 CHECK (slow_start_s BETWEEN 0 AND 3600),
	on_down TEXT NOT NULL DEFAULT 'keep' CHECK (on_down IN ('keep', 'reset'))
) STRICT;

-- The servers of an upstream.
CREATE TABLE target (
	id INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 4294967295),
	revision INTEGER NOT NULL CHECK (revision >= 0),
	parent INTEGER NOT NULL REFERENCES upstream(id) ON DELETE CASCADE,
	position INTEGER NOT NULL,
	address TEXT NOT NULL CHECK (length(address) BETWEEN 2 AND 45),
	port INTEGER NOT NULL DEFAULT 0 CHECK (port BETWEEN 0 AND 65535),
	weight INTEGER NOT NULL DEFAULT 1 CHECK (weight BETWEEN 0 AND 256),
	backup INTEGER NOT NULL DEFAULT 0 CHECK (backup IN (0, 1)),
	max_connections INTEGER NOT NULL DEFAULT 0 CHECK (max_connections BETWEEN 0 AND 16777216),
	admin_state TEXT NOT NULL DEFAULT 'up' CHECK (admin_state IN ('up', 'drain', 'down')),
	UNIQUE (parent, address, port)
) STRICT;

-- Prefixes under a name, used as @name.
CREATE TABLE address_set (
	id INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 4294967295),
	revision INTEGER NOT NULL CHECK (revision >= 0),
	name TEXT NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 63 AND name NOT GLOB '*[^a-z0-9-]*' AND name NOT GLOB '-*' AND name NOT GLOB '*-'),
	comment TEXT NOT NULL DEFAULT '' CHECK (length(CAST(comment AS BLOB)) <= 255)
) STRICT;

-- The entries of each address_set.
CREATE TABLE address_set_entries (
	parent INTEGER NOT NULL REFERENCES address_set(id) ON DELETE CASCADE,
	prefix BLOB NOT NULL CHECK (length(prefix) IN (6, 18)),
	PRIMARY KEY (parent, prefix)
) STRICT, WITHOUT ROWID;

-- How much a source, a prefix, a listener or a flow may have.
CREATE TABLE rate_limit (
	id INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 4294967295),
	revision INTEGER NOT NULL CHECK (revision >= 0),
	name TEXT NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 63 AND name NOT GLOB '*[^a-z0-9-]*' AND name NOT GLOB '-*' AND name NOT GLOB '*-'),
	comment TEXT NOT NULL DEFAULT '' CHECK (length(CAST(comment AS BLOB)) <= 255),
	key TEXT NOT NULL DEFAULT 'source' CHECK (key IN ('source', 'source_prefix', 'listener', 'flow')),
	prefix_v4 INTEGER NOT NULL DEFAULT 24 CHECK (prefix_v4 BETWEEN 1 AND 32),
	prefix_v6 INTEGER NOT NULL DEFAULT 64 CHECK (prefix_v6 BETWEEN 1 AND 128),
	metric TEXT NOT NULL DEFAULT 'new_connections' CHECK (metric IN ('new_connections', 'concurrent_connections', 'packets', 'bytes')),
	rate INTEGER NOT NULL DEFAULT 1 CHECK (rate BETWEEN 1 AND 1000000000000),
	per TEXT NOT NULL DEFAULT 'second' CHECK (per IN ('second', 'minute')),
	burst INTEGER NOT NULL DEFAULT 0 CHECK (burst BETWEEN 0 AND 1000000000000),
	action TEXT NOT NULL DEFAULT 'drop' CHECK (action IN ('drop', 'reject', 'ban', 'shape')),
	ban_s INTEGER NOT NULL DEFAULT 60 CHECK (ban_s BETWEEN 1 AND 2592000),
	mode TEXT NOT NULL DEFAULT 'enforce' CHECK (mode IN ('enforce', 'shadow')),
	escalate_after INTEGER NOT NULL DEFAULT 0 CHECK (escalate_after BETWEEN 0 AND 1000000),
	escalate_ban_s INTEGER NOT NULL DEFAULT 600 CHECK (escalate_ban_s BETWEEN 1 AND 2592000)
) STRICT;

-- What is intercepted and what happens to it.
CREATE TABLE listener (
	id INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 4294967295),
	revision INTEGER NOT NULL CHECK (revision >= 0),
	name TEXT NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 63 AND name NOT GLOB '*[^a-z0-9-]*' AND name NOT GLOB '-*' AND name NOT GLOB '*-'),
	enabled INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
	comment TEXT NOT NULL DEFAULT '' CHECK (length(CAST(comment AS BLOB)) <= 255),
	protocol TEXT NOT NULL DEFAULT 'tcp' CHECK (protocol IN ('tcp', 'udp')),
	interfaces TEXT NOT NULL DEFAULT '[]' CHECK (interfaces GLOB '[[]*]' AND length(interfaces) <= 8290),
	sources TEXT NOT NULL DEFAULT '[]' CHECK (sources GLOB '[[]*]' AND length(sources) <= 16578),
	destinations TEXT NOT NULL DEFAULT '[]' CHECK (destinations GLOB '[[]*]' AND length(destinations) <= 16578),
	ports TEXT NOT NULL DEFAULT '[]' CHECK (ports GLOB '[[]*]' AND length(ports) <= 16578),
	action TEXT NOT NULL DEFAULT 'relay' CHECK (action IN ('relay', 'reject', 'drop', 'bypass')),
	upstream TEXT REFERENCES upstream(name) ON DELETE RESTRICT,
	source_address TEXT NOT NULL DEFAULT 'client' CHECK (source_address IN ('client', 'gateway')),
	source_port TEXT NOT NULL DEFAULT 'keep' CHECK (source_port IN ('keep', 'any')),
	proxy_protocol TEXT NOT NULL DEFAULT 'off' CHECK (proxy_protocol IN ('off', 'v1', 'v2')),
	accept_proxy_protocol TEXT NOT NULL DEFAULT '[]' CHECK (accept_proxy_protocol GLOB '[[]*]' AND length(accept_proxy_protocol) <= 16578),
	rate_limits TEXT NOT NULL DEFAULT '[]' CHECK (rate_limits GLOB '[[]*]' AND length(rate_limits) <= 4146),
	on_worker_down TEXT NOT NULL DEFAULT 'drop' CHECK (on_worker_down IN ('drop', 'direct')),
	connect_timeout_ms INTEGER NOT NULL DEFAULT 5000 CHECK (connect_timeout_ms BETWEEN 10 AND 600000),
	idle_timeout_s INTEGER NOT NULL DEFAULT 3600 CHECK (idle_timeout_s BETWEEN 1 AND 604800),
	priority INTEGER NOT NULL DEFAULT 100 CHECK (priority BETWEEN 0 AND 65535),
	mover TEXT NOT NULL DEFAULT 'auto' CHECK (mover IN ('auto', 'copy', 'splice', 'sockmap', 'kernel'))
) STRICT;
CREATE INDEX listener_upstream ON listener(upstream) WHERE upstream IS NOT NULL;

-- What a listener does with a connection by its first bytes.
CREATE TABLE listener_route (
	id INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 4294967295),
	revision INTEGER NOT NULL CHECK (revision >= 0),
	parent INTEGER NOT NULL REFERENCES listener(id) ON DELETE CASCADE,
	position INTEGER NOT NULL,
	sni TEXT NOT NULL DEFAULT '[]' CHECK (sni GLOB '[[]*]' AND length(sni) <= 16578),
	alpn TEXT NOT NULL DEFAULT '[]' CHECK (alpn GLOB '[[]*]' AND length(alpn) <= 4146),
	http_host TEXT NOT NULL DEFAULT '[]' CHECK (http_host GLOB '[[]*]' AND length(http_host) <= 16578),
	http_method TEXT NOT NULL DEFAULT '[]' CHECK (http_method GLOB '[[]*]' AND length(http_method) <= 4146),
	http_path_prefix TEXT NOT NULL DEFAULT '[]' CHECK (http_path_prefix GLOB '[[]*]' AND length(http_path_prefix) <= 16578),
	action TEXT NOT NULL DEFAULT 'relay' CHECK (action IN ('relay', 'reject')),
	upstream TEXT REFERENCES upstream(name) ON DELETE RESTRICT,
	UNIQUE (parent, position)
) STRICT;
CREATE INDEX listener_route_upstream ON listener_route(upstream) WHERE upstream IS NOT NULL;

-- What is dropped at an interface before the network stack.
CREATE TABLE prefilter (
	id INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 4294967295),
	revision INTEGER NOT NULL CHECK (revision >= 0),
	interface TEXT NOT NULL UNIQUE CHECK (length(interface) BETWEEN 1 AND 15 AND interface NOT GLOB '*[^a-zA-Z0-9._@-]*'),
	enabled INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
	comment TEXT NOT NULL DEFAULT '' CHECK (length(CAST(comment AS BLOB)) <= 255),
	mode TEXT NOT NULL DEFAULT 'auto' CHECK (mode IN ('auto', 'native', 'generic')),
	deny TEXT NOT NULL DEFAULT '[]' CHECK (deny GLOB '[[]*]' AND length(deny) <= 265218),
	allow TEXT NOT NULL DEFAULT '[]' CHECK (allow GLOB '[[]*]' AND length(allow) <= 265218),
	source_pps_rate INTEGER NOT NULL DEFAULT 0 CHECK (source_pps_rate BETWEEN 0 AND 1000000000),
	source_pps_burst INTEGER NOT NULL DEFAULT 0 CHECK (source_pps_burst BETWEEN 0 AND 1000000000),
	source_pps_action TEXT NOT NULL DEFAULT 'drop' CHECK (source_pps_action IN ('drop', 'ban')),
	source_pps_ban_s INTEGER NOT NULL DEFAULT 60 CHECK (source_pps_ban_s BETWEEN 1 AND 2592000),
	syn_cookies TEXT NOT NULL DEFAULT 'off' CHECK (syn_cookies IN ('off', 'auto', 'always')),
	drop_fragments INTEGER NOT NULL DEFAULT 0 CHECK (drop_fragments IN (0, 1)),
	drop_bogons INTEGER NOT NULL DEFAULT 0 CHECK (drop_bogons IN (0, 1)),
	only_listener_ports INTEGER NOT NULL DEFAULT 0 CHECK (only_listener_ports IN (0, 1))
) STRICT;

-- Who may use the API over TCP.
CREATE TABLE token (
	id INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 4294967295),
	revision INTEGER NOT NULL CHECK (revision >= 0),
	name TEXT NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 63 AND name NOT GLOB '*[^a-z0-9-]*' AND name NOT GLOB '-*' AND name NOT GLOB '*-'),
	role TEXT NOT NULL DEFAULT 'viewer' CHECK (role IN ('viewer', 'operator', 'admin')),
	expires_at INTEGER CHECK (expires_at BETWEEN 1 AND 253402300799),
	hash TEXT NOT NULL DEFAULT '' CHECK (length(CAST(hash AS BLOB)) <= 128)
) STRICT;

-- What concerns the gateway as a whole.
CREATE TABLE settings (
	id INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 4294967295),
	revision INTEGER NOT NULL CHECK (revision >= 0),
	name TEXT NOT NULL UNIQUE CHECK (name = 'settings'),
	drift TEXT NOT NULL DEFAULT 'heal' CHECK (drift IN ('heal', 'alert')),
	interception TEXT NOT NULL DEFAULT 'nft' CHECK (interception IN ('nft', 'ebpf')),
	ban_exempt TEXT REFERENCES address_set(name) ON DELETE RESTRICT,
	revisions_kept INTEGER NOT NULL DEFAULT 10000 CHECK (revisions_kept BETWEEN 10 AND 100000),
	flow_log_destination TEXT NOT NULL DEFAULT 'off' CHECK (flow_log_destination IN ('off', 'file', 'journal')),
	flow_log_file TEXT NOT NULL DEFAULT 'flows.jsonl' CHECK (length(CAST(flow_log_file AS BLOB)) <= 64),
	flow_log_events TEXT NOT NULL DEFAULT 'end' CHECK (flow_log_events IN ('end', 'start', 'both')),
	flow_log_sample INTEGER NOT NULL DEFAULT 1 CHECK (flow_log_sample BETWEEN 1 AND 1000000),
	flow_log_fields TEXT NOT NULL DEFAULT '[]' CHECK (flow_log_fields GLOB '[[]*]' AND length(flow_log_fields) <= 6477),
	talkers_kept INTEGER NOT NULL DEFAULT 16384 CHECK (talkers_kept BETWEEN 0 AND 262144)
) STRICT;
INSERT INTO settings (revision, name) VALUES (0, 'settings');
CREATE INDEX settings_ban_exempt ON settings(ban_exempt) WHERE ban_exempt IS NOT NULL;

-- What operators have said about targets, in no revision (gatewayd/overrides.h). NULL: nothing.
CREATE TABLE target_runtime (
	target INTEGER PRIMARY KEY REFERENCES target(id) ON DELETE CASCADE,
	admin_state INTEGER CHECK (admin_state BETWEEN 0 AND 2), -- up, drain, down
	weight INTEGER CHECK (weight BETWEEN 0 AND 256),
	over_admin INTEGER NOT NULL, -- what was configured then
	over_weight INTEGER NOT NULL,
	drain_deadline INTEGER, -- seconds since 1970, UTC
	reset_per_s INTEGER NOT NULL CHECK (reset_per_s BETWEEN 0 AND 10000),
	said_at INTEGER NOT NULL, -- seconds since 1970, UTC
	actor TEXT NOT NULL
) STRICT;
