package session

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/clientip"
	"github.com/usher-go/usher/internal/bearer"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/jsonbody"
	"github.com/usher-go/usher/internal/origin"
	"github.com/usher-go/usher/jwtauth"
)

// HandlerConfig configures a [Handler].
type HandlerConfig struct {
	// Manager makes the tokens. Required.
	Manager *Manager
	// RefreshCookie and AccessCookie deliver the tokens in cookies; nil delivers them
	// in the JSON of the response.
	RefreshCookie, AccessCookie *Cookie
	// TrustedOrigins are origins such as "https://app.example.com" whose pages may
	// send requests with cookies and receive cookies, besides those of the host itself.
	// Each has the spelling of browsers: in lower case and Punycode, and without a default
	// port, a path and wildcards.
	TrustedOrigins []string
	// MaxBody limits the body of a request in bytes; zero means 4 KiB.
	MaxBody int64
	// TokensView makes the data of the response to a login or refresh; nil means the
	// members of RFC 6749, section 5.1: access_token, token_type, expires_in,
	// refresh_token and scope, without the tokens that are in cookies.
	TokensView func(t Tokens) any
}

// A Handler is the HTTP side of a [Manager]. It is safe for concurrent use.
//
//	mux.HandleFunc("POST /refresh", sessions.Refresh)
//	mux.HandleFunc("POST /logout", sessions.Logout)
//	mux.Handle("POST /logout-all", usher.Authenticate(verifier).Wrap(http.HandlerFunc(sessions.LogoutAll)))
//
// The login handler is the application's own: it calls Login once it knows who the
// user is. Every response is written by [usher.Respond] or [usher.Fail], so an envelope
// decides its shape and may change its codes and texts. Without an envelope, a response
// without data is 204 in place of 200. No response may be cached.
type Handler struct {
	manager       *Manager
	refreshCookie *Cookie
	accessCookie  *Cookie
	origins       *http.CrossOriginProtection
	maxBody       int64
	view          func(Tokens) any
}

// NewHandler returns a Handler, or all faults of c.
func NewHandler(c HandlerConfig) (*Handler, error) {
	f := config.Of[usher.ConfigError]("session.HandlerConfig")
	h := &Handler{
		manager:       c.Manager,
		origins:       origin.Trusting(f, "TrustedOrigins", c.TrustedOrigins),
		maxBody:       cmp.Or(c.MaxBody, 4<<10),
		view:          c.TokensView,
		refreshCookie: c.RefreshCookie.complete(f.In("RefreshCookie"), "refresh_token"),
		accessCookie:  c.AccessCookie.complete(f.In("AccessCookie"), "access_token"),
	}
	f.If(c.Manager == nil, "Manager", config.Required)
	f.If(h.maxBody < 0, "MaxBody", config.NotNegative)
	f.If(h.refreshCookie != nil && h.accessCookie != nil && h.refreshCookie.Name == h.accessCookie.Name,
		"AccessCookie.Name", "must not be that of RefreshCookie")
	if err := f.Err(); err != nil {
		return nil, err
	}
	if h.accessCookie != nil {
		h.manager = h.manager.forCookie(h.accessCookie.Name)
	}
	if h.view == nil {
		h.view = h.viewTokens
	}
	return h, nil
}

type tokensView struct {
	AccessToken  string `json:"access_token,omitempty"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int64  `json:"expires_in"`
	RefreshToken string `json:"refresh_token,omitempty"`
	Scope        string `json:"scope,omitempty"`
}

func (h *Handler) viewTokens(t Tokens) any {
	v := tokensView{
		TokenType: "Bearer",
		ExpiresIn: int64(t.AccessLifetime / time.Second),
		Scope:     strings.Join(t.Scopes, " "),
	}
	if h.accessCookie == nil {
		v.AccessToken = t.AccessToken()
	}
	if h.refreshCookie == nil {
		v.RefreshToken = t.RefreshToken()
	}
	return v
}

// Login opens a session and responds to r with its tokens: 200 logged_in. The caller must
// have verified that the user is template.Subject. See [Manager.Login]. If r has the
// RefreshCookie of a session, that session is ended, because the new cookie replaces it
// in the browser.
//
// Failures are 405 for methods other than POST and, if tokens are delivered in cookies,
// 403 cross_origin_request for a page of another origin, which could otherwise log a user
// in as somebody else. So do not call Login for the redirect from an identity provider:
// let the page that the redirect leads to post the result.
func (h *Handler) Login(w http.ResponseWriter, r *http.Request, template Session) {
	err := checkMethod(w, r)
	if err == nil && (h.refreshCookie != nil || h.accessCookie != nil) {
		err = h.checkOrigin(r)
	}
	var t Tokens
	if err == nil {
		t, err = h.manager.login(r.Context(), template, clientip.Of(r))
	}
	if err == nil {
		if err = h.respondTokens(w, r, t, usher.CodeLoggedIn, "Logged in."); err != nil {
			// Nobody received the tokens of this session.
			_, _ = h.manager.Logout(r.Context(), t.Session.Subject, t.Session.ID) // a failure reaches OnError
		}
	}
	if err == nil {
		// The login has succeeded; a session that cannot be ended now expires.
		_ = h.end(r, h.inCookies(r, bearer.MaxCookies), nil) // a failure reaches OnError
	}
	h.fail(w, r, err)
}

// Refresh responds to POST {"refresh_token"} with new tokens: 200 token_refreshed.
// Without that member, the refresh token is taken from the RefreshCookie, if there is
// one; with it, cookies are ignored. The members scope, a string of scopes, and client_id
// are the Scopes and the Client of a [RefreshRequest].
//
// Failures are 400 validation_failed without a token, 400 invalid_scope, 401
// invalid_refresh_token for every invalid token, 403 cross_origin_request for a page of
// another origin that sends a cookie or would receive one, 405, 413, 415, the error of
// [Config.Claims], and 503 if the store failed. No failure removes cookies: a login may have
// replaced them in the meantime.
func (h *Handler) Refresh(w http.ResponseWriter, r *http.Request) {
	texts, request, err := h.refreshRequest(w, r)
	var t Tokens
	if err == nil {
		t, err = h.manager.exchange(r.Context(), texts, request, clientip.Of(r))
	}
	if err == nil {
		err = h.respondTokens(w, r, t, usher.CodeTokenRefreshed, "Token refreshed.")
	}
	h.fail(w, r, err)
}

// session returns the access token of the Manager that authenticated r, or nil.
func (h *Handler) session(r *http.Request) *jwtauth.Token {
	p, _ := usher.PrincipalFrom(r.Context())
	t, _ := p.Details.(*jwtauth.Token)
	if t == nil || t.Issuer != h.manager.name || t.SessionID == "" || t.Subject == "" {
		return nil
	}
	return t
}

// refreshRequest returns the refresh token in the body of r, or else those in its cookies,
// and what the body asks for.
func (h *Handler) refreshRequest(w http.ResponseWriter, r *http.Request) (texts []string, request RefreshRequest, err error) {
	if err := checkMethod(w, r); err != nil {
		return nil, request, err
	}
	body, err := jsonbody.Read[usher.Field](w, r, h.maxBody, jsonbody.EmptyObject)
	if err != nil {
		return nil, request, bodyError(err)
	}
	var text, scopes string
	given := body.Optional("refresh_token", &text)
	body.Optional("scope", &scopes)
	body.Optional("client_id", &request.Client)
	if faults := body.Faults(); len(faults) > 0 {
		return nil, request, usher.Invalid(faults...)
	}
	// Other blanks separate nothing (RFC 6749, section 3.3).
	request.Scopes = strings.FieldsFunc(scopes, func(r rune) bool { return r == ' ' })
	switch {
	case text != "":
		if h.refreshCookie == nil && h.accessCookie == nil {
			return []string{text}, request, nil
		}
		// The token may be another user's, and the browser would receive that user's
		// session.
		return []string{text}, request, h.checkOrigin(r)
	case given:
		return nil, request, usher.Invalid(usher.Field{Name: "refresh_token", Message: "'refresh_token' must not be empty."})
	}
	texts = h.inCookies(r, bearer.MaxCookies+1)
	if len(texts) == 0 {
		return nil, request, errNoRefreshToken
	}
	return texts, request, h.checkOrigin(r)
}

var errNoRefreshToken = usher.Invalid(usher.Field{Name: "refresh_token", Message: "'refresh_token' is required."})

// bodyError returns the response to a body that is not a JSON object.
func bodyError(err error) error {
	e, ok := errors.AsType[*jsonbody.Error](err)
	if !ok {
		return err
	}
	code := usher.CodeValidationFailed
	if e.Status == http.StatusUnsupportedMediaType {
		code = usher.CodeUnsupportedMediaType
	}
	return &usher.Error{Status: e.Status, Code: code, Message: e.Message, Cause: e.Cause}
}

// inCookies returns the refresh tokens in the cookies of r, at most limit of them.
func (h *Handler) inCookies(r *http.Request, limit int) []string {
	if h.refreshCookie == nil {
		return nil
	}
	return bearer.Cookies(r, h.refreshCookie.Name, limit)
}

// checkMethod refuses methods other than POST.
func checkMethod(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodPost {
		return nil
	}
	w.Header()["Allow"] = []string{http.MethodPost}
	return &usher.Error{Status: http.StatusMethodNotAllowed, Code: usher.CodeMethodNotAllowed}
}

// checkOrigin refuses requests from pages of other origins.
func (h *Handler) checkOrigin(r *http.Request) error {
	if err := origin.Check(h.origins, r); err != nil {
		return &usher.Error{
			Status:  http.StatusForbidden,
			Code:    usher.CodeCrossOriginRequest,
			Message: "Pages of this origin may not do this.",
			Cause:   err,
		}
	}
	return nil
}

// respondTokens responds with t.
func (h *Handler) respondTokens(w http.ResponseWriter, r *http.Request, t Tokens, code, message string) error {
	// Encode before anything is sent, because an error needs another response.
	var (
		data    []byte
		cookies []*http.Cookie
	)
	err := errors.Join(run("TokensView", func() (err error) {
		data, err = json.Marshal(h.view(t))
		return err
	}), run("EndsWithBrowser", func() error {
		if h.refreshCookie != nil {
			cookies = append(cookies, h.refreshCookie.of(t.Session, t.RefreshToken(), t.RefreshLifetime))
		}
		if h.accessCookie != nil {
			cookies = append(cookies, h.accessCookie.of(t.Session, t.AccessToken(), t.AccessLifetime))
		}
		return nil
	}))
	if err != nil {
		return &usher.Error{Status: http.StatusInternalServerError, Code: usher.CodeInternal, Cause: err}
	}
	for _, c := range cookies {
		http.SetCookie(w, c)
	}
	h.respond(w, r, usher.Reply{Code: code, Message: message, Data: json.RawMessage(data)})
	return nil
}

// run calls f, and returns its panic as an error without the value, which may quote a
// token.
func run(callback string, f func() error) error {
	err := guard.Run(f)
	if p, ok := errors.AsType[*guard.PanicError](err); ok {
		err = fmt.Errorf("session: %s panicked with a %T", callback, p.Value)
	}
	return err
}

func (h *Handler) removeCookies(w http.ResponseWriter) {
	for _, c := range []*Cookie{h.refreshCookie, h.accessCookie} {
		if c != nil {
			http.SetCookie(w, c.make("", 0))
		}
	}
}

func (h *Handler) respond(w http.ResponseWriter, r *http.Request, reply usher.Reply) {
	w.Header()["Cache-Control"] = []string{"no-store"}
	usher.Respond(w, r, reply)
}

// fail responds with err if it is not nil.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	if err == nil {
		return
	}
	w.Header()["Cache-Control"] = []string{"no-store"}
	var (
		e       *usher.Error
		tooLong *http.MaxBytesError
	)
	switch {
	case errors.Is(err, ErrInvalidRefreshToken):
		err = invalidRefreshToken
	case errors.As(err, &e), errors.As(err, &tooLong):
	default:
		err = &usher.Error{
			Status:     http.StatusServiceUnavailable,
			Code:       usher.CodeServiceUnavailable,
			Message:    "The sessions cannot be reached. Please try again.",
			RetryAfter: time.Second,
			Cause:      err,
		}
	}
	usher.Fail(w, r, err)
}
