package usher

// The codes of every failure that a package of this module sends, each with its default
// status. A code is stable and for programs; the catalogue of an envelope maps it to a
// service's own status, code and text. A service chooses its own codes for what it
// refuses itself.

// Codes of package usher, and of more than one package.
const (
	CodeValidationFailed          = "validation_failed"          // 400: fields of the request are at fault
	CodeMissingCredential         = "missing_credential"         // 401: the request carries no credential
	CodeAmbiguousCredentials      = "ambiguous_credentials"      // 401: the request carries more than one credential
	CodeWrongCredentialKind       = "wrong_credential_kind"      // 403: the route does not accept this kind of credential
	CodeInsufficientScope         = "insufficient_scope"         // 403: a scope is not granted
	CodeInsufficientPermission    = "insufficient_permission"    // 403: the permission level is too low
	CodeWrongOwner                = "wrong_owner"                // 403: the route belongs to another account
	CodeNotFound                  = "not_found"                  // 404: there is nothing at this path
	CodeMethodNotAllowed          = "method_not_allowed"         // 405: the path allows only other methods
	CodePayloadTooLarge           = "payload_too_large"          // 413: the body is longer than allowed
	CodeUnsupportedMediaType      = "unsupported_media_type"     // 415: the body is not JSON
	CodeClientClosedRequest       = "client_closed_request"      // 499: the client has gone and receives nothing
	CodeInternal                  = "internal"                   // 500: a fault of the server, which the client does not see
	CodeAuthenticationUnavailable = "authentication_unavailable" // 503: the credential could not be verified now
	CodeDeadlineExceeded          = "deadline_exceeded"          // 503 or 504: the handler, or what it waited for, did not respond in time
	CodeServiceUnavailable        = "service_unavailable"        // 503: a store that a management request needs has failed
)

// Codes of package clientip.
const (
	CodeTLSRequired = "tls_required" // 403: the client sent the request without TLS
)

// Codes of package apikey.
const (
	CodeInvalidAPIKey  = "invalid_api_key"   // 401: malformed, unknown, revoked, expired or of another environment
	CodeAPIKeyNotFound = "api_key_not_found" // 404: no such key, or another owner's
	CodeAPIKeyLimit    = "api_key_limit"     // 409: the owner has as many active keys as allowed
	CodeAPIKeyConflict = "api_key_conflict"  // 409: the key is revoked, expired or replaced
)

// Codes of package jwtauth. The first two are those of RFC 6750, section 3.1.
const (
	CodeInvalidRequest = "invalid_request" // 400: the request carries two tokens
	CodeInvalidToken   = "invalid_token"   // 401: the token is not valid, for whatever reason
)

// Codes of sessions.
const (
	CodeInvalidScope        = "invalid_scope"         // 400: a refresh asks for a scope that the session does not have
	CodeInvalidRefreshToken = "invalid_refresh_token" // 401: unknown, expired, revoked or used before
	CodeSessionRevoked      = "session_revoked"       // 403: a login or refresh of a subject who is revoked
	CodeCrossOriginRequest  = "cross_origin_request"  // 403: a request that a page of another origin has a browser send
)

// Codes of package ratelimit.
const (
	CodeBlocked              = "blocked"                // 403: the client is on the block list
	CodeRateLimited          = "rate_limited"           // 429: a limit is used up
	CodeTooManyConcurrent    = "too_many_concurrent"    // 429: too many requests at the same time
	CodeRateLimitUnavailable = "rate_limit_unavailable" // 503: the store failed and the limiter fails closed, or a limit is invalid
)

// Codes of package idempotency.
const (
	CodeIdempotencyKeyMissing       = "idempotency_key_missing"       // 400: the route requires a key
	CodeIdempotencyKeyInvalid       = "idempotency_key_invalid"       // 400: not one field of 1 to 255 visible ASCII characters
	CodeBodyUnreadable              = "body_unreadable"               // 400: the body did not arrive whole
	CodeBodyTimeout                 = "body_timeout"                  // 408: the body did not arrive in time
	CodeIdempotencyInProgress       = "idempotency_in_progress"       // 409: the first request is running; try again
	CodeIdempotencyOutcomeUnknown   = "idempotency_outcome_unknown"   // 409: the first request may have had an effect; do not try again
	CodeIdempotencyResponseNotKept  = "idempotency_response_not_kept" // 409: the first request ran, and its response was not stored
	CodeIdempotencyKeyReused        = "idempotency_key_reused"        // 422: the key was used for another request
	CodeIdempotencyTooManyKeys      = "idempotency_too_many_keys"     // 429: the caller has as many keys as allowed
	CodeIdempotencyRecordUnreadable = "idempotency_record_unreadable" // 500 or 503: the record in the store cannot be read
	CodeIdempotencyUnavailable      = "idempotency_unavailable"       // 503: the store has failed
)

// Codes of successes, in shapes that have a place for one.
const (
	CodeAPIKeyCreated       = "api_key_created"       // 201
	CodeAPIKeyRotated       = "api_key_rotated"       // 201
	CodeAPIKeyDerived       = "api_key_derived"       // 201
	CodeAPIKeysListed       = "api_keys_listed"       // 200
	CodeAPIKeyFound         = "api_key_found"         // 200
	CodeAPIKeyUpdated       = "api_key_updated"       // 200
	CodeAPIKeyRevoked       = "api_key_revoked"       // 200
	CodeLoggedIn            = "logged_in"             // 200
	CodeTokenRefreshed      = "token_refreshed"       // 200
	CodeLoggedOut           = "logged_out"            // 200
	CodeLoggedOutEverywhere = "logged_out_everywhere" // 200
)
