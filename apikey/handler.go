package apikey

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/clientip"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/exchange"
)

// HandlerConfig configures [NewHandler].
type HandlerConfig struct {
	// Manager makes the changes. Required.
	Manager *Manager

	// Principal, if not nil, returns the caller. The caller's account owns the keys, and
	// the caller cannot grant more than it holds. An error of Principal refuses the
	// request. Nil means [usher.PrincipalFrom].
	Principal func(r *http.Request) (usher.Principal, error)
	// IDIsOwner lists the kinds of principal whose ID is the name of their account: for
	// instance [usher.KindJWT], where people log in and their subject is the Owner of
	// their keys. A principal of any other kind without an Owner is refused, because its
	// ID may equal the name of another account.
	IDIsOwner []usher.Kind
	// Level and Scopes are granted to every caller in addition to those of its principal,
	// unless its credential is an API key. A session usually has neither, and so could
	// not even revoke a key that grants anything. If everybody who can log in to an
	// account may do everything with its keys, set the highest level and all scopes of
	// the service.
	Level  usher.Level
	Scopes []string
	// DangerouslyAcceptAPIKeys accepts callers whose credential is an API key. A stolen
	// key can then create others, which outlive its revocation, though not its expiry. A
	// derived key may neither change nor see keys.
	DangerouslyAcceptAPIKeys bool

	// DefaultLevel is the level of a new key if the request names none.
	DefaultLevel usher.Level
	// Grace is how long a key remains valid after its rotation if the request does not
	// specify it; zero ends the key at once.
	Grace time.Duration
	// PageSize is how many keys a page of the list has if the request does not specify
	// it, and MaxPageSize is the most that a request may ask for; zero means 20 and 100.
	PageSize, MaxPageSize int
	// Unpaged lists all keys, without paging.
	Unpaged bool
	// MaxBody bounds the body of a request in bytes; zero means 16 KiB.
	MaxBody int64

	// The views return the data of the responses, for encoding/json; nil means the shapes
	// that NewHandler documents. IssuedView is for a response with the text of a key, and
	// must include the result of [Secret.Reveal]. A view runs before the change that it
	// shows: if it panics or its result cannot be encoded, nothing is changed.
	KeyView    func(k Key) any
	IssuedView func(k Key, secret Secret) any
	ListView   func(keys []Key) any
}

// NewHandler returns the HTTP API for owners to manage their keys, or all faults of c.
// Mount it inside the authentication of people, at its path with and without a trailing
// slash:
//
//	keys := session.Wrap(http.StripPrefix("/api-keys", handler))
//	mux.Handle("/api-keys", keys)
//	mux.Handle("/api-keys/", keys)
//
// If the session is in a cookie, also put [http.CrossOriginProtection] outside the
// handler. Even without it, no page of another origin makes a change: a body must be
// application/json, which a browser sends there only after a preflight, and a POST with
// neither that type nor a body is refused with [usher.CodeCrossOriginRequest].
//
//	POST   /             {name, description, scopes, level, allowed_networks, expires_at, environment}
//	                     201 api_key_created
//	GET    /?page&limit  200 api_keys_listed
//	GET    /{id}         200 api_key_found
//	PATCH  /{id}         {name, description, scopes, level, allowed_networks, expires_at, disabled}
//	                     200 api_key_updated
//	POST   /{id}/rotate  {grace_seconds}
//	                     201 api_key_rotated
//	POST   /{id}/derive  {name, description, scopes, level, allowed_networks, expires_at}
//	                     201 api_key_derived
//	DELETE /{id}?line    200 api_key_revoked, without data
//
// All members but the name of a new key are optional, and PATCH needs at least one.
// expires_at null means never, and a time is at most 9999-12-30T00:00:00Z. The
// allowed_networks are networks such as 192.0.2.0/24 and single addresses; an empty list
// permits all. disabled is true or false, and so is line: true revokes all keys of the
// rotations that the key is part of; see [Manager.RevokeLine]. A derived key always expires;
// see [Manager.Derive] for what is usual. A key is
//
//	{"id", "name", "description", "prefix", "last_four", "scopes", "level", "environment",
//	 "allowed_networks", "created_at", "created_by", "updated_at", "expires_at",
//	 "disabled_at", "revoked_at", "last_used_at", "last_used_from", "replaced_by",
//	 "derived_from"}
//
// with null for what is not set, and an empty list for no scopes and no networks. A
// response with the text of a key is {"api_key", "key"}, and a list is an array of keys.
// [Key.Metadata] is the service's, and neither read nor shown. The document
// docs/openapi.json of this module describes it all for programs.
//
// A caller sees only the keys of its own account, which is [usher.Principal.Owner]. It
// can grant only what it holds, and can change or revoke only keys that grant no more
// than it holds; see [Actor]. Failures are 400 [usher.CodeValidationFailed], 401, 403,
// 404 [usher.CodeAPIKeyNotFound], 409 [usher.CodeAPIKeyLimit] and
// [usher.CodeAPIKeyConflict], 413, 415, and 503 if the store failed. Every response is
// written by [usher.Respond] or [usher.Fail], so the envelope in use decides its shape
// and may change codes and texts.
func NewHandler(c HandlerConfig) (http.Handler, error) {
	c.PageSize = cmp.Or(c.PageSize, 20)
	c.MaxPageSize = cmp.Or(c.MaxPageSize, 100)
	c.MaxBody = cmp.Or(c.MaxBody, 16<<10)
	faults := config.Of[usher.ConfigError]("apikey.HandlerConfig")
	if m := c.Manager; m == nil {
		faults.Add("Manager", config.Required)
	} else {
		faults.If(c.Grace > m.maxGrace, "Grace", "must be at most ManagerConfig.MaxGrace")
		faults.If(c.DefaultLevel > m.maxLevel, "DefaultLevel", "must be at most ManagerConfig.MaxLevel")
	}
	faults.If(c.Grace < 0, "Grace", config.NotNegative)
	faults.If(c.Manager == nil && c.DefaultLevel > usher.LevelFull, "DefaultLevel", "must be a level")
	faults.If(slices.Contains(c.IDIsOwner, usher.KindAPIKey), "IDIsOwner", "must not name API keys, which have an Owner")
	faults.If(c.Level > usher.LevelFull, "Level", "must be a level")
	faults.If(slices.ContainsFunc(c.Scopes, func(s string) bool { return !isScope(s) }),
		"Scopes", "must be scopes of 1 to 128 visible characters other than quote and backslash")
	faults.If(c.MaxPageSize < 0, "MaxPageSize", config.NotNegative)
	faults.If(c.PageSize < 0 || c.MaxPageSize >= 0 && c.PageSize > c.MaxPageSize, "PageSize", "must be from 1 to MaxPageSize")
	faults.If(c.MaxBody < 0, "MaxBody", config.NotNegative)
	if err := faults.Err(); err != nil {
		return nil, err
	}
	c.IDIsOwner, c.Scopes = slices.Clone(c.IDIsOwner), slices.Clone(c.Scopes)
	if c.Principal == nil {
		c.Principal = principalFrom
	}
	if c.KeyView == nil {
		c.KeyView = viewKey
	}
	if c.IssuedView == nil {
		c.IssuedView = func(k Key, secret Secret) any { return issuedView{secret.Reveal(), viewKey(k)} }
	}
	if c.ListView == nil {
		c.ListView = viewList
	}
	return &handler{c}, nil
}

type handler struct{ HandlerConfig }

// A call is a request by an authorized caller.
type call struct {
	w     http.ResponseWriter
	r     *http.Request
	by    Actor
	owner string
	id    string
}

// ServeHTTP routes without an http.ServeMux. That would respond to unknown paths and
// methods in a shape of its own, and its redirects would lack the prefix that was
// stripped.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header()["Cache-Control"] = []string{"no-store"}
	id, action, nested := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	var methods map[string]func(*call) error
	switch {
	case id == "" && !nested:
		methods = map[string]func(*call) error{http.MethodGet: h.list, http.MethodPost: h.create}
	case id != "" && !nested:
		methods = map[string]func(*call) error{http.MethodGet: h.find, http.MethodPatch: h.update, http.MethodDelete: h.revoke}
	case id != "" && action == "rotate":
		methods = map[string]func(*call) error{http.MethodPost: h.rotate}
	case id != "" && action == "derive":
		methods = map[string]func(*call) error{http.MethodPost: h.derive}
	default:
		usher.NotFound(w, r)
		return
	}
	serve := methods[r.Method]
	if serve == nil && r.Method == http.MethodHead {
		serve = methods[http.MethodGet]
	}
	if serve == nil {
		w.Header()["Allow"] = []string{allowed(methods)}
		usher.MethodNotAllowed(w, r)
		return
	}
	c, err := h.admit(w, r, id)
	if err == nil {
		err = serve(c)
	}
	if err != nil {
		usher.Fail(w, r, h.failure(r, err))
	}
}

// allowed returns the value of the Allow field.
func allowed(methods map[string]func(*call) error) string {
	var names []string
	for name := range methods {
		names = append(names, name)
		if name == http.MethodGet {
			names = append(names, http.MethodHead)
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// admit returns the call that r makes, or the response if its caller may not make any.
func (h *handler) admit(w http.ResponseWriter, r *http.Request, id string) (*call, error) {
	var p usher.Principal
	if err := callback("HandlerConfig.Principal", func() (err error) {
		p, err = h.Principal(r)
		return err
	}); err != nil {
		h.Manager.failed(r.Context(), "authenticate", err)
		return nil, err
	}
	if p.Kind == usher.KindAPIKey && !h.DangerouslyAcceptAPIKeys {
		return nil, &usher.Error{
			Status:  http.StatusForbidden,
			Code:    usher.CodeWrongCredentialKind,
			Message: "API keys cannot manage API keys.",
		}
	}
	if p.Owner == "" && slices.Contains(h.IDIsOwner, p.Kind) {
		p.Owner = p.ID
	}
	if p.Owner == "" {
		return nil, forbidden("The caller has no account whose API keys it could manage.")
	}
	if p.Kind != usher.KindAPIKey {
		p.Level = max(p.Level, h.Level)
		p.Scopes = slices.Concat(p.Scopes, h.Scopes)
	}
	return &call{w, r, Actor{Principal: &p, Address: clientip.Of(r)}, p.Owner, id}, nil
}

func principalFrom(r *http.Request) (usher.Principal, error) {
	p, ok := usher.PrincipalFrom(r.Context())
	if !ok {
		return p, usher.ErrNoCredential
	}
	return p, nil
}

// failure returns the response to a request whose Manager call returned err.
func (h *handler) failure(r *http.Request, err error) error {
	var (
		e       *usher.Error
		tooLong *http.MaxBytesError
	)
	switch {
	case errors.As(err, &e), errors.As(err, &tooLong):
		return err
	case errors.Is(err, ErrNotFound):
		return &usher.Error{Status: http.StatusNotFound, Code: usher.CodeAPIKeyNotFound, Message: "API key not found.", Cause: err}
	case errors.Is(err, ErrLimit):
		return &usher.Error{
			Status:  http.StatusConflict,
			Code:    usher.CodeAPIKeyLimit,
			Message: fmt.Sprintf("Maximum %d active API keys allowed.", h.Manager.limits.active),
			Cause:   err,
		}
	case errors.Is(err, ErrFull):
		return &usher.Error{
			Status:  http.StatusConflict,
			Code:    usher.CodeAPIKeyLimit,
			Message: "The account has as many API keys as may be stored, ended ones included.",
			Cause:   err,
		}
	case errors.Is(err, ErrConflict):
		return &usher.Error{
			Status:  http.StatusConflict,
			Code:    usher.CodeAPIKeyConflict,
			Message: "The API key is revoked, expired or replaced, or is being changed.",
			Cause:   err,
		}
	case exchange.Left(r.Context()):
		gone := abandoned
		gone.Cause = err
		return &gone
	default:
		return &usher.Error{
			Status:     http.StatusServiceUnavailable,
			Code:       usher.CodeServiceUnavailable,
			Message:    "The API keys cannot be reached. Please try again.",
			RetryAfter: time.Second,
			Cause:      err,
		}
	}
}
