/*
 * The certificate of the API: made at the first start (self-signed), loaded
 * from DIR/cert.pem and DIR/key.pem, replaced while running. Called by the
 * daemon at its start, by http.c for each handshake, and through routes.def:
 *
 * GET /tls   {"subject", "issuer", "fingerprint", "not_before", "expires_at", "self_signed"}
 * PUT /tls   {"certificate", "private_key"} (PEM): taken for the next connection; those that are open go on
 */
#ifndef GW_WEBAPI_TLS_H
#define GW_WEBAPI_TLS_H

#include <gnutls/abstract.h>

#include "webapi/router.h"

/* Certificates of a chain; public ones have three or four. */
#define TLS_CHAIN_MAX 8
/* "SHA256:" and 32 times two digits and a colon (or the terminator). */
#define TLS_FINGERPRINT_BYTES (7 + 3 * 32)

struct tls;

/* Opens DIRECTORY (made with mode 0700 if it is not there), and makes a key and a certificate if there are none:
 * ECDSA P-256, ten years, for localhost, 127.0.0.1, ::1 and the host's name. ret_made (may be NULL) tells that. 0,
 * -EINVAL (the files do not hold a key and its certificate), -ENOMEM, -EIO, or what the file system says. */
int tls_open(const char *directory, struct tls **ret, bool *ret_made);
void tls_free(struct tls *tls);
/* "SHA256:AB:CD:..." of the certificate in use. */
const char *tls_fingerprint(const struct tls *tls);
/* Takes another certificate, in the files and for the next handshake. 0, -EINVAL with faults in errs (not readable,
 * key of another certificate, expired, not yet valid), -ENOMEM, or what the file system says: nothing is changed. */
int tls_replace(struct tls *tls, const char *certificate, const char *key, struct errs *errs);
/* Names the one whose certificate tls_retrieve hands out: the library gives it no argument of ours. */
void tls_serve(const struct tls *tls);
/* gnutls_certificate_retrieve_function3. */
int tls_retrieve(gnutls_session_t session, const struct gnutls_cert_retr_st *info, gnutls_pcert_st **certificates,
        unsigned *n_certificates, gnutls_ocsp_data_st **ocsp, unsigned *n_ocsp, gnutls_privkey_t *key, unsigned *flags);

/* Route handlers: 0 with the response filled, -ENOMEM. */
int tls_get(const struct request *request, struct response *response);
int tls_put(const struct request *request, struct response *response);

#endif
