package apikey

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/jsonbody"
)

// HandlerConfig configures [NewHandler].
type HandlerConfig struct {
	// Manager makes the changes. Required.
	Manager *Manager

	// Principal says who asks, and so whose keys these are and what they may
	// grant; nil means [usher.PrincipalFrom]. An error is the response.
	Principal func(r *http.Request) (usher.Principal, error)
	// IDIsOwner are the kinds of principal whose ID is the name of their account,
	// for instance [usher.KindJWT] for sessions of people whose keys have their
	// subject as Owner. A principal of another kind without an Owner is refused, as
	// its ID may equal the name of somebody else's account.
	IDIsOwner []usher.Kind
	// Level and Scopes are what every caller holds here beside what its principal
	// does, unless it presents an API key. A session mostly holds neither, and could
	// not even revoke a key that grants something: where all who may log in to an
	// account may do everything with its keys, name the highest level and all
	// scopes of the service.
	Level  usher.Level
	Scopes []string
	// DangerouslyAcceptAPIKeys lets callers in who present an API key. Whoever
	// finds a key can then make others that outlive its revocation, though not its
	// expiry.
	DangerouslyAcceptAPIKeys bool
	// Address says for the audit where a request comes from; nil means the peer of
	// the connection.
	Address func(r *http.Request) string

	// DefaultLevel is the level of a new key if the request names none.
	DefaultLevel usher.Level
	// Grace is how long a rotated key lives on if the request does not say; zero
	// ends it at once.
	Grace time.Duration
	// PageSize is how many keys a page of the list has if the request does not
	// say, and MaxPageSize the most it may ask for; zero means 20 and 100.
	PageSize, MaxPageSize int
	// Unpaged answers with the newest MaxPageSize keys and says nothing of pages.
	Unpaged bool
	// MaxBody bounds the body of a request in bytes; zero means 16 KiB.
	MaxBody int64

	// The views make the data of the responses, as encoding/json takes it; nil means
	// the shapes that NewHandler states. IssuedView is for a response with the text of
	// a key, which is to stand in it as [Secret.Reveal]. The views of a change are made
	// before it: if one panics or cannot be encoded, nothing is changed.
	KeyView    func(k Key) any
	IssuedView func(k Key, secret Secret) any
	ListView   func(keys []Key) any
}

// NewHandler returns the HTTP API with which the owners of keys manage them, or
// all faults of c. Mount it behind the authentication of people, under both
// forms of its path:
//
//	keys := session.Wrap(http.StripPrefix("/api-keys", handler))
//	mux.Handle("/api-keys", keys)
//	mux.Handle("/api-keys/", keys)
//
// A session in a cookie also needs [http.CrossOriginProtection] before it.
//
//	POST   /             {name, scopes, level, environment, expires_at}
//	                     201 api_key_created
//	GET    /?page&limit  200 api_keys_listed
//	GET    /{id}         200 api_key_found
//	PATCH  /{id}         {name, scopes, level, expires_at}
//	                     200 api_key_updated
//	POST   /{id}/rotate  {grace_seconds}
//	                     201 api_key_rotated
//	DELETE /{id}         200 api_key_revoked, without data
//
// Members that may be left out are all but the name; expires_at null means never,
// and a time is at most 9999-12-30T00:00:00Z.
// A key is
//
//	{"id", "name", "prefix", "last_four", "scopes", "level", "environment",
//	 "created_at", "updated_at", "expires_at", "revoked_at", "last_used_at", "replaced_by"}
//
// with null for what is not set; the answers with a text are {"api_key", "key"};
// a list is an array of keys.
//
// A caller sees only the keys of its own account, which is [usher.Principal.Owner].
// It can only grant what it holds, and only change or revoke a key that grants no
// more than it holds; see [Actor]. Failures are 400 validation_failed, 401, 403, 404
// [usher.CodeAPIKeyNotFound], 409 [usher.CodeAPIKeyLimit] and [usher.CodeAPIKeyConflict], 413, 415, and 503
// if the store failed. Everything is written by [usher.Respond] and [usher.Fail],
// so the envelope in use decides its shape and may change its codes and texts.
func NewHandler(c HandlerConfig) (http.Handler, error) {
	var errs []error
	fault := func(field, reason string) {
		errs = append(errs, &usher.ConfigError{Field: "apikey.HandlerConfig." + field, Reason: reason})
	}
	c.PageSize = orDefault(c.PageSize, 20)
	c.MaxPageSize = orDefault(c.MaxPageSize, 100)
	c.MaxBody = orDefault(c.MaxBody, 16<<10)
	if c.Manager == nil {
		fault("Manager", "is required")
	} else if c.Grace < 0 || c.Grace > c.Manager.maxGrace {
		fault("Grace", "must be from 0 to ManagerConfig.MaxGrace")
	}
	if slices.Contains(c.IDIsOwner, usher.KindAPIKey) {
		fault("IDIsOwner", "must not name API keys, which have an Owner")
	}
	if c.Level > usher.LevelFull {
		fault("Level", "must be a level")
	}
	if slices.ContainsFunc(c.Scopes, func(s string) bool { return !isScope(s) }) {
		fault("Scopes", "must be scopes of 1 to 128 visible characters other than quote and backslash")
	}
	if c.Manager != nil && c.DefaultLevel > c.Manager.maxLevel {
		fault("DefaultLevel", "must not be above ManagerConfig.MaxLevel")
	}
	if c.PageSize < 1 || c.PageSize > c.MaxPageSize {
		fault("PageSize", "must be from 1 to MaxPageSize")
	}
	if c.MaxBody < 0 {
		fault("MaxBody", "must not be negative")
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	c.IDIsOwner, c.Scopes = slices.Clone(c.IDIsOwner), slices.Clone(c.Scopes)
	if c.Principal == nil {
		c.Principal = principalFrom
	}
	if c.Address == nil {
		c.Address = peer
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

// A call is one request by somebody who may make it.
type call struct {
	w     http.ResponseWriter
	r     *http.Request
	by    Actor
	owner string
	id    string
}

// ServeHTTP finds what is asked for. It uses no http.ServeMux, which would answer
// unknown paths and methods in a shape of its own and redirect to paths without
// the prefix that was stripped.
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

// allowed returns the value of Allow.
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

// admit says who asks, or why that may not be.
func (h *handler) admit(w http.ResponseWriter, r *http.Request, id string) (*call, error) {
	var (
		p       usher.Principal
		address string
	)
	if err := callback("HandlerConfig.Principal or Address", func() (err error) {
		if p, err = h.Principal(r); err == nil {
			address = h.Address(r)
		}
		return err
	}); err != nil {
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
	return &call{w, r, Actor{Principal: &p, Address: address}, p.Owner, id}, nil
}

func principalFrom(r *http.Request) (usher.Principal, error) {
	p, ok := usher.PrincipalFrom(r.Context())
	if !ok {
		return p, &usher.Error{
			Status:  http.StatusUnauthorized,
			Code:    usher.CodeMissingCredential,
			Message: "The request carries no credential.",
		}
	}
	return p, nil
}

// failure returns what a client is told of an error of the Manager.
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
			Message: fmt.Sprintf("Maximum %d active API keys allowed.", h.Manager.maxActive),
			Cause:   err,
		}
	case errors.Is(err, ErrConflict):
		return &usher.Error{
			Status:  http.StatusConflict,
			Code:    usher.CodeAPIKeyConflict,
			Message: "The API key is revoked, expired or replaced, or is being changed.",
			Cause:   err,
		}
	case left(r.Context()):
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

func (h *handler) create(c *call) error {
	var template Key
	d, err := jsonbody.Read(c.w, c.r, h.MaxBody, true)
	if err != nil {
		return err
	}
	d.Required("name", &template.Name)
	d.Optional("scopes", &template.Scopes)
	if !d.Optional("level", &template.Level) {
		template.Level = h.DefaultLevel
	}
	d.Optional("environment", &template.Environment)
	d.Optional("expires_at", &template.ExpiresAt)
	if err := d.Fault(); err != nil {
		return err
	}
	template.Owner = c.owner
	var data any
	if _, _, err := h.Manager.createSeen(c.r.Context(), c.by, template, h.issued(&data)); err != nil {
		return err
	}
	c.respond(http.StatusCreated, usher.CodeAPIKeyCreated, "API key created.", data)
	return nil
}

// issued returns the preview that makes the data of a response with the text of a
// key. It comes before the key is stored, as afterwards the text would be lost.
func (h *handler) issued(data *any) preview {
	return func(k Key, secret Secret) (err error) {
		*data, err = show("HandlerConfig.IssuedView", func() any { return h.IssuedView(showable(k), secret) })
		return err
	}
}

// show makes the data of a response, of which it makes sure that it can be encoded.
func show(name string, f func() any) (data any, err error) {
	err = callback(name, func() error {
		data = f()
		if _, err := json.Marshal(data); err != nil {
			return &usher.Error{
				Status: http.StatusInternalServerError,
				Code:   usher.CodeInternal,
				Cause:  fmt.Errorf("apikey: %s: %w", name, err),
			}
		}
		return nil
	})
	return data, err
}

func (h *handler) list(c *call) error {
	page := usher.Page{Number: 1, Limit: h.PageSize}
	if h.Unpaged {
		page.Limit = h.MaxPageSize
	} else {
		var faults []usher.Field
		// Far beyond every list, and far from overflow.
		const maxPage = 1 << 20
		number(c.r, "page", &page.Number, maxPage, &faults)
		number(c.r, "limit", &page.Limit, h.MaxPageSize, &faults)
		if len(faults) > 0 {
			return jsonbody.Invalid(faults...)
		}
	}
	keys, total, err := h.Manager.List(c.r.Context(), c.owner, (page.Number-1)*page.Limit, page.Limit)
	if err != nil {
		return err
	}
	for i := range keys {
		keys[i] = showable(keys[i])
	}
	data, err := show("HandlerConfig.ListView", func() any { return h.ListView(keys) })
	if err != nil {
		return err
	}
	reply := usher.Reply{Code: usher.CodeAPIKeysListed, Message: "API keys found.", Data: data}
	if !h.Unpaged {
		page.Total = total
		reply.Page = &page
	}
	usher.Respond(c.w, c.r, reply)
	return nil
}

// number reads a query parameter. What is above most is taken for most.
func number(r *http.Request, name string, n *int, most int, faults *[]usher.Field) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return
	}
	got, err := strconv.Atoi(text)
	if errors.Is(err, strconv.ErrRange) && got > 0 {
		err = nil
	}
	if err != nil || got < 1 {
		*faults = append(*faults, usher.Field{Name: name, Message: "'" + name + "' must be a whole number from 1."})
		return
	}
	*n = min(got, most)
}

func (h *handler) find(c *call) error {
	k, err := h.Manager.Find(c.r.Context(), c.owner, c.id)
	if err != nil {
		return err
	}
	data, err := show("HandlerConfig.KeyView", func() any { return h.KeyView(showable(k)) })
	if err != nil {
		return err
	}
	c.respond(http.StatusOK, usher.CodeAPIKeyFound, "API key found.", data)
	return nil
}

func (h *handler) update(c *call) error {
	d, err := jsonbody.Read(c.w, c.r, h.MaxBody, true)
	if err != nil {
		return err
	}
	var to Key
	name := d.Optional("name", &to.Name)
	scopes := d.Optional("scopes", &to.Scopes)
	level := d.Optional("level", &to.Level)
	expires := d.Optional("expires_at", &to.ExpiresAt)
	if err := d.Fault(); err != nil {
		return err
	}
	var data any
	_, err = h.Manager.updateSeen(c.r.Context(), c.by, c.owner, c.id, func(k *Key) {
		if name {
			k.Name = to.Name
		}
		if scopes {
			k.Scopes = to.Scopes
		}
		if level {
			k.Level = to.Level
		}
		if expires {
			k.ExpiresAt = to.ExpiresAt
		}
	}, func(k Key, _ Secret) (err error) {
		data, err = show("HandlerConfig.KeyView", func() any { return h.KeyView(showable(k)) })
		return err
	})
	if err != nil {
		return err
	}
	c.respond(http.StatusOK, usher.CodeAPIKeyUpdated, "API key updated.", data)
	return nil
}

func (h *handler) rotate(c *call) error {
	d, err := jsonbody.Read(c.w, c.r, h.MaxBody, false)
	if err != nil {
		return err
	}
	grace := h.Grace
	var seconds int32
	if d.Optional("grace_seconds", &seconds) {
		grace = time.Duration(seconds) * time.Second
	}
	if err := d.Fault(); err != nil {
		return err
	}
	var data any
	if _, _, err := h.Manager.rotateSeen(c.r.Context(), c.by, c.owner, c.id, grace, h.issued(&data)); err != nil {
		return err
	}
	c.respond(http.StatusCreated, usher.CodeAPIKeyRotated, "API key rotated.", data)
	return nil
}

func (h *handler) revoke(c *call) error {
	if _, err := h.Manager.Revoke(c.r.Context(), c.by, c.owner, c.id); err != nil {
		return err
	}
	c.respond(http.StatusOK, usher.CodeAPIKeyRevoked, "API key revoked.", nil)
	return nil
}

func (c *call) respond(status int, code, message string, data any) {
	usher.Respond(c.w, c.r, usher.Reply{Status: status, Code: code, Message: message, Data: data})
}
