/* The API's certificate: made, loaded, replaced under open connections; and nothing in plain text on a TLS socket. */
#include "tests/unit/api_client.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <sys/stat.h>

#include "webapi/tls.h"

#define TLS   "/api/v1/tls"
#define ADMIN "Authorization: Bearer " API_TOKEN "\r\n"

static struct api api;
static char directory[64], command[256];
static struct tls *tls;

static void start_with(const struct http_limits *limits)
{
	struct http_config config = { .api_gid = -1, .token = API_TOKEN, .secure = true, .limits = limits };
	bool made = false;

	strcpy(directory, "/tmp/gw-tls-XXXXXX");
	assert_non_null(mkdtemp(directory));
	strcat(directory, "/tls");
	assert_int_equal(tls_open(directory, &tls, &made), 0);
	assert_true(made);
	config.tls = tls;
	api_start(&api, true, &config);
}

static int start(void **state)
{
	(void)state;
	start_with(NULL);
	return 0;
}

static int start_short(void **state)
{
	static const struct http_limits limits = API_LIMITS_SHORT;

	(void)state;
	start_with(&limits);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	api_stop(&api);
	tls_free(tls);
	*strrchr(directory, '/') = '\0';
	snprintf(command, sizeof(command), "rm -r %s", directory);
	return system(command);
}

/* One TLS connection of the client. */
struct client {
	int fd;
	gnutls_session_t session;
	gnutls_certificate_credentials_t credentials;
	char fingerprint[TLS_FINGERPRINT_BYTES];
};

static void client_close(struct client *client)
{
	gnutls_deinit(client->session);
	gnutls_certificate_free_credentials(client->credentials);
	close(client->fd);
}
#define _cleanup_client_ _cleanup_(client_close)

/* Checks the certificate against itself as anchor for `host`: the name must be in it. */
static unsigned verify(const struct client *client, const char *host)
{
	unsigned n, status = 0;
	const gnutls_datum_t *peers = gnutls_certificate_get_peers(client->session, &n);
	gnutls_x509_crt_t certificate;

	assert_non_null(peers);
	assert_int_equal(gnutls_x509_crt_init(&certificate), 0);
	assert_int_equal(gnutls_x509_crt_import(certificate, &peers[0], GNUTLS_X509_FMT_DER), 0);
	assert_int_equal(gnutls_x509_crt_list_verify(&certificate, 1, &certificate, 1, NULL, 0, 0, &status), 0);
	status |= gnutls_x509_crt_check_hostname(certificate, host) ? 0 : 1;
	gnutls_x509_crt_deinit(certificate);
	return status;
}

static void read_fingerprint(struct client *client)
{
	unsigned n;
	const gnutls_datum_t *peers = gnutls_certificate_get_peers(client->session, &n);
	uint8_t sum[32];
	size_t size = sizeof(sum);

	assert_non_null(peers);
	assert_int_equal(gnutls_fingerprint(GNUTLS_DIG_SHA256, &peers[0], sum, &size), 0);
	strcpy(client->fingerprint, "SHA256:");
	for (size_t i = 0; i < sizeof(sum); i++)
		snprintf(client->fingerprint + 7 + 3 * i, 4, i < 31 ? "%02X:" : "%02X", sum[i]);
}

static struct client client_open(const char *priorities)
{
	struct client client = { .fd = api_connect(&api) };
	double end = api_now() + 5;
	int r;

	assert_int_equal(gnutls_certificate_allocate_credentials(&client.credentials), 0);
	assert_int_equal(gnutls_init(&client.session, GNUTLS_CLIENT | GNUTLS_NONBLOCK), 0);
	assert_int_equal(gnutls_priority_set_direct(client.session, priorities, NULL), 0);
	assert_int_equal(gnutls_credentials_set(client.session, GNUTLS_CRD_CERTIFICATE, client.credentials), 0);
	gnutls_transport_set_int(client.session, client.fd);
	do {
		r = gnutls_handshake(client.session);
		api_turn(&api, client.fd, POLLIN, 5);
	} while (r < 0 && !gnutls_error_is_fatal(r) && api_now() < end);
	if (r == 0)
		read_fingerprint(&client);
	return client;
}

/* Says a request and hears one answer. */
static struct api_answer client_ask(
        struct client *client, const char *method, const char *path, const char *headers, const char *body)
{
	_cleanup_free_ char *text = NULL;
	struct api_answer answer = { .bytes = calloc(1, 1) };
	double end = api_now() + 5;
	size_t at = 0, length;

	assert_true(asprintf(&text, "%s %s HTTP/1.1\r\nHost: localhost\r\n%s%sContent-Length: %zu\r\n\r\n%s", method,
	                    path, headers, body ? "Content-Type: application/json\r\n" : "", body ? strlen(body) : 0,
	                    body ? body : "") > 0);
	length = strlen(text);
	while (api_now() < end && !api_complete(&answer, 1, false)) {
		char buffer[4096];
		ssize_t n = at < length ? gnutls_record_send(client->session, text + at, length - at) : 0;

		at += n > 0 ? (size_t)n : 0;
		api_turn(&api, client->fd, POLLIN, 5);
		n = gnutls_record_recv(client->session, buffer, sizeof(buffer));
		if (n == 0 || (n < 0 && gnutls_error_is_fatal((int)n)))
			break;
		if (n < 0)
			continue;
		answer.bytes = realloc(answer.bytes, answer.length + (size_t)n + 1);
		memcpy(answer.bytes + answer.length, buffer, (size_t)n);
		answer.length += (size_t)n;
		answer.bytes[answer.length] = '\0';
	}
	return answer;
}

static void test_made(void **state)
{
	_cleanup_client_ struct client client = client_open("NORMAL");
	char host[256] = "", path[96];
	struct stat status;

	(void)state;
	assert_string_equal(client.fingerprint, tls_fingerprint(tls));
	gethostname(host, sizeof(host) - 1);
	assert_int_equal(verify(&client, "localhost"), 0);
	assert_int_equal(verify(&client, "127.0.0.1"), 0);
	assert_int_equal(verify(&client, "::1"), 0);
	assert_int_equal(verify(&client, host), 0);
	assert_int_not_equal(verify(&client, "evil.example"), 0);
	snprintf(path, sizeof(path), "%s/key.pem", directory);
	assert_int_equal(stat(path, &status), 0);
	assert_int_equal(status.st_mode & 0777, 0600);
	assert_int_equal(stat(directory, &status), 0);
	assert_int_equal(status.st_mode & 0777, 0700);
}

static void test_requests(void **state)
{
	_cleanup_client_ struct client client = client_open("NORMAL"),
	                               old = client_open("NORMAL:-VERS-ALL:+VERS-TLS1.2");
	_cleanup_answer_ struct api_answer got = client_ask(&client, "GET", TLS, ADMIN, NULL);
	_cleanup_answer_ struct api_answer again = client_ask(&client, "PUT", "/api/v1/listeners/web", ADMIN, "{}");
	_cleanup_answer_ struct api_answer none = client_ask(&client, "GET", TLS, "", NULL);
	_cleanup_answer_ struct api_answer login =
	        client_ask(&old, "POST", "/api/v1/session", "", "{\"token\":\"" API_TOKEN "\"}");
	_cleanup_free_ char *cookie = api_header(&login, "Set-Cookie");

	(void)state;
	api_expect_status(&got, 200);
	assert_non_null(strstr(api_body(&got), tls_fingerprint(tls)));
	assert_non_null(strstr(api_body(&got), "\"subject\":\"CN=gatewayd\""));
	assert_non_null(strstr(api_body(&got), "\"self_signed\":true"));
	assert_null(strstr(api_body(&got), "PRIVATE"));
	api_expect_status(&again, 201);
	api_expect_problem(&none, 401);
	api_expect_status(&login, 200);
	assert_non_null(strstr(cookie, "; Secure"));
}

static void test_old_versions(void **state)
{
	_cleanup_client_ struct client client = client_open("NORMAL:-VERS-ALL:+VERS-TLS1.1:%COMPAT");

	(void)state;
	assert_string_equal(client.fingerprint, "");
}

/* The text of a file of another directory, in which another certificate was made. */
static char *other_text(const char *name)
{
	char *text = calloc(1, 8192), path[96];
	FILE *file;

	snprintf(path, sizeof(path), "%s/../other/%s", directory, name);
	file = fopen(path, "r");
	assert_non_null(file);
	assert_true(fread(text, 1, 8191, file) > 0);
	fclose(file);
	return text;
}

static char *body_of(const char *certificate, const char *key)
{
	json_t *document = json_pack("{s:s, s:s}", "certificate", certificate, "private_key", key);
	char *text = json_dumps(document, 0);

	json_decref(document);
	return text;
}

static struct tls *make_other(void)
{
	char path[96];
	struct tls *other;

	snprintf(path, sizeof(path), "%s/../other", directory);
	assert_int_equal(tls_open(path, &other, NULL), 0);
	return other;
}

/* Taken for the next connection; the one that is open goes on; the next start has it. */
static void test_replace(void **state)
{
	struct tls *other = make_other(), *later;
	_cleanup_free_ char *certificate = other_text("cert.pem"), *key = other_text("key.pem");
	_cleanup_free_ char *body = body_of(certificate, key);
	_cleanup_client_ struct client before = client_open("NORMAL");
	_cleanup_answer_ struct api_answer put = client_ask(&before, "PUT", TLS, ADMIN, body);
	_cleanup_client_ struct client after = client_open("NORMAL");
	_cleanup_answer_ struct api_answer still = client_ask(&before, "GET", TLS, ADMIN, NULL);
	_cleanup_answer_ struct api_answer fresh = client_ask(&after, "GET", TLS, ADMIN, NULL);

	(void)state;
	api_expect_status(&put, 200);
	api_expect_status(&still, 200);
	api_expect_status(&fresh, 200);
	assert_string_not_equal(before.fingerprint, after.fingerprint);
	assert_string_equal(after.fingerprint, tls_fingerprint(other));
	assert_int_equal(tls_open(directory, &later, NULL), 0);
	assert_string_equal(tls_fingerprint(later), tls_fingerprint(other));
	tls_free(later);
	tls_free(other);
	assert_null(strstr(api.core.audit[0], "PRIVATE"));
}

/* A certificate for the other key, with its own times. */
static char *make_certificate(const char *key_text, time_t from, time_t to)
{
	gnutls_datum_t text = { (unsigned char *)key_text, (unsigned)strlen(key_text) }, out;
	gnutls_x509_privkey_t key;
	gnutls_x509_crt_t certificate;
	char *copy;

	assert_int_equal(gnutls_x509_privkey_init(&key), 0);
	assert_int_equal(gnutls_x509_privkey_import(key, &text, GNUTLS_X509_FMT_PEM), 0);
	assert_int_equal(gnutls_x509_crt_init(&certificate), 0);
	gnutls_x509_crt_set_version(certificate, 3);
	gnutls_x509_crt_set_serial(certificate, "\1", 1);
	gnutls_x509_crt_set_activation_time(certificate, from);
	gnutls_x509_crt_set_expiration_time(certificate, to);
	gnutls_x509_crt_set_dn(certificate, "CN=test", NULL);
	gnutls_x509_crt_set_key(certificate, key);
	assert_int_equal(gnutls_x509_crt_sign2(certificate, certificate, key, GNUTLS_DIG_SHA256, 0), 0);
	assert_int_equal(gnutls_x509_crt_export2(certificate, GNUTLS_X509_FMT_PEM, &out), 0);
	copy = strdup((char *)out.data);
	gnutls_free(out.data);
	gnutls_x509_crt_deinit(certificate);
	gnutls_x509_privkey_deinit(key);
	return copy;
}

static void expect_refused(const char *certificate, const char *key, const char *pointer, const char *code)
{
	_cleanup_client_ struct client client = client_open("NORMAL");
	_cleanup_free_ char *body = body_of(certificate, key);
	_cleanup_answer_ struct api_answer answer = client_ask(&client, "PUT", TLS, ADMIN, body);

	api_expect_problem(&answer, 422);
	api_expect_fault(&answer, pointer, code);
	assert_null(strstr(answer.bytes, "PRIVATE"));
}

static void test_refused(void **state)
{
	struct tls *other = make_other();
	_cleanup_free_ char *key = other_text("key.pem"), *certificate = other_text("cert.pem"), *own = NULL;
	time_t now = time(NULL);
	_cleanup_free_ char *expired = make_certificate(key, now - 1000, now - 10);
	_cleanup_free_ char *early = make_certificate(key, now + 1000, now + 2000);
	_cleanup_free_ char *fingerprint = strdup(tls_fingerprint(tls));
	struct tls *later;

	(void)state;
	tls_free(other);
	snprintf(command, sizeof(command), "rm %s/../other/*", directory);
	assert_int_equal(system(command), 0);
	other = make_other();
	own = other_text("key.pem");
	tls_free(other);
	expect_refused("x", key, "/certificate", "bad_value");
	expect_refused(certificate, "x", "/private_key", "bad_value");
	expect_refused(key, certificate, "/certificate", "bad_value");
	expect_refused(certificate, own, "/private_key", "mismatch");
	expect_refused(expired, key, "/certificate", "expired");
	expect_refused(early, key, "/certificate", "not_yet_valid");
	assert_string_equal(tls_fingerprint(tls), fingerprint);
	assert_int_equal(tls_open(directory, &later, NULL), 0);
	assert_string_equal(tls_fingerprint(later), fingerprint);
	tls_free(later);
}

/* A crash between the two renames, a lost key, a foreign key. */
static void test_files(void **state)
{
	struct tls *other = make_other(), *later;

	(void)state;
	snprintf(command, sizeof(command), "cd %s && cp ../other/key.pem . && cp ../other/cert.pem cert.pem.new",
	        directory);
	assert_int_equal(system(command), 0);
	assert_int_equal(tls_open(directory, &later, NULL), 0);
	assert_string_equal(tls_fingerprint(later), tls_fingerprint(other));
	tls_free(later);
	tls_free(other);
	snprintf(command, sizeof(command), "cd %s && mv key.pem k", directory);
	assert_int_equal(system(command), 0);
	assert_int_equal(tls_open(directory, &later, NULL), -ENOENT);
	snprintf(command, sizeof(command), "cd %s && echo x > key.pem", directory);
	assert_int_equal(system(command), 0);
	assert_int_equal(tls_open(directory, &later, NULL), -EINVAL);
	assert_int_equal(tls_open("/proc/none/tls", &later, NULL), -ENOENT);
}

/* Late in the handshake, and late within a request: the end comes without a byte in plain text. */
static void test_late(void **state)
{
	_cleanup_close_ int fd = api_connect(&api);
	_cleanup_answer_ struct api_answer nothing = { 0 }, rest = { 0 };
	_cleanup_client_ struct client client = { .fd = -1 };

	(void)state;
	api_say(&api, fd, "\x16\x03\x01", 3, 1);
	nothing = api_hear(&api, fd, 1, false, 3);
	assert_true(nothing.ended);
	assert_int_equal(nothing.length, 0);
	client = client_open("NORMAL");
	assert_true(gnutls_record_send(client.session, "POST / HT", 9) == 9);
	rest = api_hear(&api, client.fd, 1, false, 3);
	assert_true(rest.ended);
	assert_null(memmem(rest.bytes, rest.length, "HTTP", 4));
}

static void test_plain_text_is_refused(void **state)
{
	_cleanup_answer_ struct api_answer answer = api_json(&api, "GET", "/healthz", "", NULL);

	(void)state;
	assert_null(strstr(answer.bytes, "HTTP"));
}

#define WITH(test)  cmocka_unit_test_setup_teardown(test, start, stop)
#define SHORT(test) cmocka_unit_test_setup_teardown(test, start_short, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH(test_made),
		WITH(test_requests),
		WITH(test_old_versions),
		WITH(test_replace),
		WITH(test_refused),
		WITH(test_files),
		SHORT(test_late),
		WITH(test_plain_text_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
