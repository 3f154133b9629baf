/*
 * The API's certificate, see tls.h. It is kept as the text of the two files;
 * each handshake makes its own objects of it, so that a new certificate never
 * pulls anything away from under a handshake that has begun. The two files
 * are renamed one after the other, the key first: a start that finds a key
 * and the certificate before it takes the one that was about to follow.
 */
#include "webapi/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/x509.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "webapi/problem.h"
#include "webapi/write.h"

#define CERTIFICATE_FILE "cert.pem"
#define KEY_FILE         "key.pem"
#define NEW              ".new"
/* A file larger than this is no certificate chain. */
#define FILE_BYTES_MAX ((size_t)256 * 1024)
/* Not before: a day back, since clocks of clients differ. */
#define MADE_BACK_S 86400
#define MADE_S      (INT64_C(3650) * 86400)

struct tls {
	char directory[PATH_MAX / 2];
	char *certificate, *key; /* PEM */
	char fingerprint[TLS_FINGERPRINT_BYTES];
	json_t *description;
};

static const struct tls *served;

static gnutls_datum_t datum_of(const char *text)
{
	return (gnutls_datum_t){ (unsigned char *)text, (unsigned)strlen(text) };
}

static void fingerprint_of(gnutls_x509_crt_t certificate, char text[TLS_FINGERPRINT_BYTES])
{
	uint8_t sum[32];
	size_t size = sizeof(sum);

	strcpy(text, "SHA256:");
	if (gnutls_x509_crt_get_fingerprint(certificate, GNUTLS_DIG_SHA256, sum, &size) < 0)
		return;
	for (size_t i = 0; i < sizeof(sum); i++)
		snprintf(text + 7 + 3 * i, 4, i + 1 < sizeof(sum) ? "%02X:" : "%02X", sum[i]);
}

/* Whether the key is that of the certificate. */
static bool belong_together(gnutls_x509_crt_t certificate, gnutls_x509_privkey_t key)
{
	uint8_t a[64], b[64];
	size_t n = sizeof(a), m = sizeof(b);

	return gnutls_x509_crt_get_key_id(certificate, GNUTLS_KEYID_USE_SHA256, a, &n) == 0 &&
	       gnutls_x509_privkey_get_key_id(key, GNUTLS_KEYID_USE_SHA256, b, &m) == 0 && n == m && !memcmp(a, b, n);
}

static json_t *time_of(time_t time)
{
	struct tm parts;
	char text[32];

	gmtime_r(&time, &parts);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts);
	return json_string(text);
}

/* A distinguished name; NULL as JSON null when it cannot be shown. */
static json_t *name_of(gnutls_x509_crt_t certificate, bool issuer)
{
	char text[512];
	size_t size = sizeof(text);
	int r = issuer ? gnutls_x509_crt_get_issuer_dn(certificate, text, &size)
	               : gnutls_x509_crt_get_dn(certificate, text, &size);
	json_t *name = r < 0 ? NULL : json_string(text);

	return name ? name : json_null();
}

static json_t *describe(gnutls_x509_crt_t certificate, const char *fingerprint)
{
	return json_pack("{s:o, s:o, s:s, s:o, s:o, s:b}", "subject", name_of(certificate, false), "issuer",
	        name_of(certificate, true), "fingerprint", fingerprint, "not_before",
	        time_of(gnutls_x509_crt_get_activation_time(certificate)), "expires_at",
	        time_of(gnutls_x509_crt_get_expiration_time(certificate)), "self_signed",
	        (int)gnutls_x509_crt_check_issuer(certificate, certificate));
}

/* What is read out of a pair. */
struct pair {
	gnutls_x509_crt_t chain[TLS_CHAIN_MAX];
	unsigned n;
	gnutls_x509_privkey_t key;
};

static void pair_clear(struct pair *pair)
{
	for (unsigned i = 0; i < pair->n; i++)
		gnutls_x509_crt_deinit(pair->chain[i]);
	if (pair->key)
		gnutls_x509_privkey_deinit(pair->key);
}

static void read_pair(const char *certificate, const char *key, struct pair *pair, struct errs *errs)
{
	gnutls_datum_t chain = datum_of(certificate), secret = datum_of(key);
	unsigned n = TLS_CHAIN_MAX;
	int r = gnutls_x509_crt_list_import(
	        pair->chain, &n, &chain, GNUTLS_X509_FMT_PEM, GNUTLS_X509_CRT_LIST_IMPORT_FAIL_IF_EXCEED);

	if (r > 0)
		pair->n = (unsigned)r;
	else
		errs_add(
		        errs, "/certificate", "bad_value", "not a chain of 1 to %d certificates in PEM", TLS_CHAIN_MAX);
	if (gnutls_x509_privkey_init(&pair->key) < 0)
		pair->key = NULL;
	if (!pair->key || gnutls_x509_privkey_import(pair->key, &secret, GNUTLS_X509_FMT_PEM) < 0)
		errs_add(errs, "/private_key", "bad_value", "not a private key in PEM without a password");
}

/* 0 or -EINVAL with faults. `strict`: also that its time is now, which a start does not insist on. */
static int check_pair(const struct pair *pair, bool strict, struct errs *errs)
{
	time_t now = time(NULL);

	if (errs->n)
		return -EINVAL;
	if (!belong_together(pair->chain[0], pair->key))
		errs_add(errs, "/private_key", "mismatch", "this is not the key of the first certificate");
	if (strict && gnutls_x509_crt_get_expiration_time(pair->chain[0]) <= now)
		errs_add(errs, "/certificate", "expired", "the certificate has expired");
	if (strict && gnutls_x509_crt_get_activation_time(pair->chain[0]) > now)
		errs_add(errs, "/certificate", "not_yet_valid", "the certificate is not valid yet");
	return errs->n ? -EINVAL : 0;
}

/* Takes the texts into use. 0 or -ENOMEM. */
static int take(struct tls *tls, const struct pair *pair, const char *certificate, const char *key)
{
	char fingerprint[TLS_FINGERPRINT_BYTES] = "";
	_cleanup_free_ char *new_certificate = strdup(certificate), *new_key = strdup(key);
	json_t *description;

	fingerprint_of(pair->chain[0], fingerprint);
	description = describe(pair->chain[0], fingerprint);
	if (!new_certificate || !new_key || !description) {
		json_decref(description);
		return -ENOMEM;
	}
	json_decref(tls->description);
	tls->description = description;
	memcpy(tls->fingerprint, fingerprint, sizeof(fingerprint));
	if (tls->key)
		gnutls_memset(tls->key, 0, strlen(tls->key));
	free(tls->certificate);
	free(tls->key);
	tls->certificate = TAKE_PTR(new_certificate);
	tls->key = TAKE_PTR(new_key);
	return 0;
}

/* ---- files ---- */

static void path_of(const struct tls *tls, const char *name, const char *suffix, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, "%s/%s%s", tls->directory, name, suffix);
}

/* The text of a file, new. -ENOENT, -EFBIG, ... */
static int read_text(const struct tls *tls, const char *name, const char *suffix, char **ret)
{
	_cleanup_free_ char *text = calloc(1, FILE_BYTES_MAX + 1);
	_cleanup_fclose_ FILE *file = NULL;
	char path[PATH_MAX];

	if (!text)
		return -ENOMEM;
	path_of(tls, name, suffix, path);
	file = fopen(path, "re");
	if (!file)
		return -errno;
	if (fread(text, 1, FILE_BYTES_MAX + 1, file) > FILE_BYTES_MAX)
		return -EFBIG;
	if (ferror(file))
		return -EIO;
	*ret = TAKE_PTR(text);
	return 0;
}

static int write_text(const struct tls *tls, const char *name, const char *text)
{
	_cleanup_close_ int fd = -1;
	size_t length = strlen(text);
	char path[PATH_MAX];

	path_of(tls, name, NEW, path);
	(void)unlink(path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	for (size_t at = 0; at < length;) {
		ssize_t n = write(fd, text + at, length - at);

		if (n < 0)
			return -errno;
		at += (size_t)n;
	}
	return fsync(fd) < 0 ? -errno : 0;
}

/* The new file in place of the old one. */
static int settle(const struct tls *tls, const char *name)
{
	char from[PATH_MAX], to[PATH_MAX];

	path_of(tls, name, NEW, from);
	path_of(tls, name, "", to);
	return rename(from, to) < 0 ? -errno : 0;
}

static int sync_directory(const struct tls *tls)
{
	_cleanup_close_ int fd = open(tls->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

static int store(const struct tls *tls, const char *certificate, const char *key)
{
	int r = write_text(tls, CERTIFICATE_FILE, certificate);

	if (!r)
		r = write_text(tls, KEY_FILE, key);
	if (!r)
		r = settle(tls, KEY_FILE);
	if (!r)
		r = settle(tls, CERTIFICATE_FILE);
	return r ? r : sync_directory(tls);
}

static int use(struct tls *tls, const char *certificate, const char *key, bool strict, bool keep, struct errs *errs)
{
	_cleanup_(pair_clear) struct pair pair = { .n = 0 };
	int r;

	read_pair(certificate, key, &pair, errs);
	r = check_pair(&pair, strict, errs);
	if (!r && keep)
		r = store(tls, certificate, key);
	return r ? r : take(tls, &pair, certificate, key);
}

int tls_replace(struct tls *tls, const char *certificate, const char *key, struct errs *errs)
{
	return use(tls, certificate, key, true, true, errs);
}

/* Loads the pair, or the one that a crash left half in place. */
static int load(struct tls *tls)
{
	_cleanup_errs_ struct errs errs = { 0 };
	_cleanup_free_ char *certificate = NULL, *key = NULL, *next = NULL;
	int r = read_text(tls, KEY_FILE, "", &key);

	if (!r)
		r = read_text(tls, CERTIFICATE_FILE, "", &certificate);
	if (!r)
		r = use(tls, certificate, key, false, false, &errs);
	if ((r != -EINVAL && r != -ENOENT) || !key || read_text(tls, CERTIFICATE_FILE, NEW, &next) < 0)
		return r;
	errs_clear(&errs);
	r = use(tls, next, key, false, false, &errs);
	return r ? r : settle(tls, CERTIFICATE_FILE);
}

/* ---- making one ---- */

static int add_names(gnutls_x509_crt_t certificate)
{
	static const uint8_t v4[] = { 127, 0, 0, 1 };
	static const uint8_t v6[16] = { [15] = 1 };
	char host[HOST_NAME_MAX + 1] = "";
	int r = gnutls_x509_crt_set_subject_alt_name(
	        certificate, GNUTLS_SAN_DNSNAME, "localhost", 9, GNUTLS_FSAN_APPEND);

	if (r >= 0)
		r = gnutls_x509_crt_set_subject_alt_name(
		        certificate, GNUTLS_SAN_IPADDRESS, v4, sizeof(v4), GNUTLS_FSAN_APPEND);
	if (r >= 0)
		r = gnutls_x509_crt_set_subject_alt_name(
		        certificate, GNUTLS_SAN_IPADDRESS, v6, sizeof(v6), GNUTLS_FSAN_APPEND);
	if (r < 0 || gethostname(host, sizeof(host) - 1) < 0 || !*host || !strcmp(host, "localhost"))
		return r;
	return gnutls_x509_crt_set_subject_alt_name(
	        certificate, GNUTLS_SAN_DNSNAME, host, (unsigned)strlen(host), GNUTLS_FSAN_APPEND);
}

static int fill_certificate(gnutls_x509_crt_t certificate, gnutls_x509_privkey_t key)
{
	time_t now = time(NULL);
	uint8_t serial[16];
	int r = gnutls_rnd(GNUTLS_RND_NONCE, serial, sizeof(serial));

	serial[0] = (uint8_t)((serial[0] & 0x3f) | 0x40); /* positive, and of full length */
	if (r >= 0)
		r = gnutls_x509_crt_set_version(certificate, 3);
	if (r >= 0)
		r = gnutls_x509_crt_set_serial(certificate, serial, sizeof(serial));
	if (r >= 0)
		r = gnutls_x509_crt_set_activation_time(certificate, now - MADE_BACK_S);
	if (r >= 0)
		r = gnutls_x509_crt_set_expiration_time(certificate, now + MADE_S);
	if (r >= 0)
		r = gnutls_x509_crt_set_dn(certificate, "CN=gatewayd", NULL);
	if (r >= 0)
		r = gnutls_x509_crt_set_key(certificate, key);
	if (r >= 0)
		r = gnutls_x509_crt_set_key_usage(certificate, GNUTLS_KEY_DIGITAL_SIGNATURE);
	if (r >= 0)
		r = gnutls_x509_crt_set_key_purpose_oid(certificate, GNUTLS_KP_TLS_WWW_SERVER, 0);
	if (r >= 0)
		r = add_names(certificate);
	return r < 0 ? r : gnutls_x509_crt_sign2(certificate, certificate, key, GNUTLS_DIG_SHA256, 0);
}

static int make_pair(struct pair *pair)
{
	int r = gnutls_x509_privkey_init(&pair->key);

	if (r >= 0)
		r = gnutls_x509_privkey_generate(
		        pair->key, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0);
	if (r >= 0 && (r = gnutls_x509_crt_init(&pair->chain[0])) >= 0)
		pair->n = 1;
	return r < 0 ? r : fill_certificate(pair->chain[0], pair->key);
}

static int make(struct tls *tls)
{
	_cleanup_(pair_clear) struct pair pair = { .n = 0 };
	gnutls_datum_t certificate = { NULL, 0 }, key = { NULL, 0 };
	int r = make_pair(&pair);

	if (r >= 0)
		r = gnutls_x509_crt_export2(pair.chain[0], GNUTLS_X509_FMT_PEM, &certificate);
	if (r >= 0)
		r = gnutls_x509_privkey_export2_pkcs8(pair.key, GNUTLS_X509_FMT_PEM, NULL, GNUTLS_PKCS_PLAIN, &key);
	if (r < 0)
		r = -EIO;
	else
		r = store(tls, (const char *)certificate.data, (const char *)key.data);
	if (!r)
		r = take(tls, &pair, (const char *)certificate.data, (const char *)key.data);
	if (key.data)
		gnutls_memset(key.data, 0, key.size);
	gnutls_free(certificate.data);
	gnutls_free(key.data);
	return r;
}

/* Whether neither file is there: half of a pair is somebody's mistake, which must not be overwritten. */
static bool is_empty(const struct tls *tls)
{
	char certificate[PATH_MAX], key[PATH_MAX];

	path_of(tls, CERTIFICATE_FILE, "", certificate);
	path_of(tls, KEY_FILE, "", key);
	return access(certificate, F_OK) < 0 && access(key, F_OK) < 0;
}

int tls_open(const char *directory, struct tls **ret, bool *ret_made)
{
	struct tls *tls = calloc(1, sizeof(*tls));
	bool made;
	int r;

	if (!tls)
		return -ENOMEM;
	if ((size_t)snprintf(tls->directory, sizeof(tls->directory), "%s", directory) >= sizeof(tls->directory))
		r = -ENAMETOOLONG;
	else
		r = mkdir(directory, 0700) < 0 && errno != EEXIST ? -errno : 0;
	made = !r && is_empty(tls);
	if (!r)
		r = made ? make(tls) : load(tls);
	if (r < 0) {
		tls_free(tls);
		return r;
	}
	if (ret_made)
		*ret_made = made;
	*ret = tls;
	return 0;
}

void tls_free(struct tls *tls)
{
	if (!tls)
		return;
	if (served == tls)
		served = NULL;
	if (tls->key)
		gnutls_memset(tls->key, 0, strlen(tls->key));
	free(tls->certificate);
	free(tls->key);
	json_decref(tls->description);
	free(tls);
}

const char *tls_fingerprint(const struct tls *tls)
{
	return tls->fingerprint;
}

/* ---- handshakes ---- */

void tls_serve(const struct tls *tls)
{
	served = tls;
}

int tls_retrieve(gnutls_session_t session, const struct gnutls_cert_retr_st *info, gnutls_pcert_st **certificates,
        unsigned *n_certificates, gnutls_ocsp_data_st **ocsp, unsigned *n_ocsp, gnutls_privkey_t *key, unsigned *flags)
{
	gnutls_datum_t chain, secret;
	unsigned n = TLS_CHAIN_MAX;
	gnutls_pcert_st *list;

	(void)session;
	(void)info;
	if (!served)
		return -1;
	chain = datum_of(served->certificate);
	secret = datum_of(served->key);
	list = gnutls_calloc(TLS_CHAIN_MAX, sizeof(*list)); /* freed by the library, as the flag says */
	if (!list || gnutls_pcert_list_import_x509_raw(list, &n, &chain, GNUTLS_X509_FMT_PEM, 0) < 0) {
		gnutls_free(list);
		return -1;
	}
	if (gnutls_privkey_init(key) < 0 ||
	        gnutls_privkey_import_x509_raw(*key, &secret, GNUTLS_X509_FMT_PEM, NULL, 0) < 0) {
		for (unsigned i = 0; i < n; i++)
			gnutls_pcert_deinit(&list[i]);
		gnutls_free(list);
		return -1;
	}
	*certificates = list;
	*n_certificates = n;
	*ocsp = NULL;
	*n_ocsp = 0;
	*flags = GNUTLS_CERT_RETR_DEINIT_ALL;
	return 0;
}

/* ---- the API ---- */

static int not_here(const struct request *request, struct response *response)
{
	return problem_answer(response, PROBLEM_NOT_FOUND, request, NULL, "This gateway has no certificate.");
}

int tls_get(const struct request *request, struct response *response)
{
	int r = write_refuse_query(request, response);

	if (r)
		return r < 0 ? r : 0;
	if (!request->services->tls)
		return not_here(request, response);
	return response_json(response, 200, CONTENT_JSON, json_incref(request->services->tls->description));
}

/* The texts of the body; faults for what else it has. */
static void read_body(json_t *body, const char **ret_certificate, const char **ret_key, struct errs *errs)
{
	const char *key;
	json_t *value;

	*ret_certificate = json_string_value(json_object_get(body, "certificate"));
	*ret_key = json_string_value(json_object_get(body, "private_key"));
	json_object_foreach(body, key, value) if (strcmp(key, "certificate") != 0 && strcmp(key, "private_key") != 0)
	        errs_add(errs, "", "unknown_key", "The body has \"certificate\" and \"private_key\" only.");
	if (!*ret_certificate)
		errs_add(errs, "/certificate", "required", "a text in PEM is wanted here");
	if (!*ret_key)
		errs_add(errs, "/private_key", "required", "a text in PEM is wanted here");
}

int tls_put(const struct request *request, struct response *response)
{
	_cleanup_errs_ struct errs errs = { 0 };
	_cleanup_json_ json_t *body = NULL;
	const char *certificate, *key;
	int r = write_refuse_query(request, response);

	if (!r)
		r = write_parse_body(request, response, &body);
	if (r)
		return r < 0 ? r : 0;
	if (!request->services->tls)
		return not_here(request, response);
	read_body(body, &certificate, &key, &errs);
	r = errs.n ? -EINVAL : tls_replace(request->services->tls, certificate, key, &errs);
	if (r < 0)
		return problem_from_errno(response, r, request, &errs);
	return response_json(response, 200, CONTENT_JSON, json_incref(request->services->tls->description));
}
