package session

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/bearer"
	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/jsonbody"
	"github.com/usher-go/usher/jwtauth"
)

// HandlerConfig configures a [Handler].
type HandlerConfig struct {
	// Manager makes the tokens. Required.
	Manager *Manager
	// RefreshCookie and AccessCookie deliver the tokens in cookies; nil delivers
	// them in the JSON of the answer.
	RefreshCookie, AccessCookie *Cookie
	// TrustedOrigins are origins such as "https://app.example.com" whose pages may
	// send requests with cookies and be given some, beside those of the host itself.
	TrustedOrigins []string
	// MaxBody bounds the body of a request in bytes; zero means 4 KiB.
	MaxBody int64
	// Address says for the audit where a request comes from; nil means the peer of
	// the connection.
	Address func(r *http.Request) string
	// TokensView makes the data of the answer to a login or refresh; nil means the
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
// The handler of the login is the server's own: it calls Login once it knows who
// is there. Everything is written by [usher.Respond] and [usher.Fail], so the
// envelope in use decides its shape and may change its codes and texts. No answer
// may be cached.
type Handler struct {
	manager       *Manager
	refreshCookie *Cookie
	accessCookie  *Cookie
	origins       *http.CrossOriginProtection
	maxBody       int64
	address       func(*http.Request) string
	view          func(Tokens) any
}

// NewHandler returns a Handler, or all faults of c.
func NewHandler(c HandlerConfig) (*Handler, error) {
	var errs []error
	const path = "session.HandlerConfig"
	fault := func(field, reason string) {
		errs = append(errs, &usher.ConfigError{Field: path + "." + field, Reason: reason})
	}
	h := &Handler{
		manager: c.Manager,
		origins: http.NewCrossOriginProtection(),
		maxBody: cmp.Or(c.MaxBody, 4<<10),
		address: c.Address,
		view:    c.TokensView,
	}
	if c.Manager == nil {
		fault("Manager", "is required")
	}
	if h.maxBody < 0 {
		fault("MaxBody", "must not be negative")
	}
	cookie := func(c *Cookie, token, field string) *Cookie {
		if c == nil {
			return nil
		}
		own := *c
		errs = append(errs, own.complete(token, path+"."+field)...)
		return &own
	}
	h.refreshCookie = cookie(c.RefreshCookie, "refresh_token", "RefreshCookie")
	h.accessCookie = cookie(c.AccessCookie, "access_token", "AccessCookie")
	if h.refreshCookie != nil && h.accessCookie != nil && h.refreshCookie.Name == h.accessCookie.Name {
		fault("AccessCookie.Name", "is that of RefreshCookie")
	}
	for n, origin := range c.TrustedOrigins {
		if err := h.origins.AddTrustedOrigin(origin); err != nil {
			fault(fmt.Sprintf("TrustedOrigins[%d]", n), "must be scheme://host or scheme://host:port")
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if h.address == nil {
		h.address = peerAddress
	}
	if h.view == nil {
		h.view = h.viewTokens
	}
	return h, nil
}

// peerAddress returns the address of the other end of the connection.
func peerAddress(r *http.Request) string {
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		return host
	}
	return r.RemoteAddr
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
		Scope:     strings.Join(t.Session.Scopes, " "),
	}
	if h.accessCookie == nil {
		v.AccessToken = t.AccessToken()
	}
	if h.refreshCookie == nil {
		v.RefreshToken = t.RefreshToken()
	}
	return v
}

// Login opens a session and responds to r with its tokens: 200 logged_in. That the
// client is who template.Subject says is for the caller to know. See
// [Manager.Login]. A session whose RefreshCookie r carries is ended, as the new one
// takes its place in the browser.
//
// Failures are 405 for another method than POST and, where tokens are delivered in
// cookies, 403 cross_origin_request for a page of another origin, which could
// otherwise log somebody in as somebody else. So a redirect from an identity provider
// is no request to call it for; a page that it leads to may post what it has brought.
func (h *Handler) Login(w http.ResponseWriter, r *http.Request, template Session) {
	err := checkMethod(w, r)
	if err == nil && (h.refreshCookie != nil || h.accessCookie != nil) {
		err = h.checkOrigin(r)
	}
	var (
		t       Tokens
		address string
	)
	if err == nil {
		address = h.address(r)
		t, err = h.manager.login(r.Context(), template, address)
	}
	if err == nil {
		if err = h.answer(w, r, t, usher.CodeLoggedIn, "Logged in."); err != nil {
			// Nobody has the tokens of this session.
			_ = h.manager.Logout(r.Context(), t.Session.ID) // reports its failure
		}
	}
	if err == nil {
		// The client has what it asked for, and a session that could not be ended ends
		// by itself.
		_ = h.endPresented(r, address, h.inCookies(r, bearer.MaxCookies), nil) // reports its failures
	}
	h.fail(w, r, err)
}

// Refresh answers POST {"refresh_token"} with new tokens: 200 token_refreshed.
// Without that member it takes the refresh token from the RefreshCookie, if there
// is one; a token in the body decides alone.
//
// Failures are 400 validation_failed for no token, 401 [usher.CodeInvalidRefreshToken]
// for one that is not good, whatever is wrong with it, 403 cross_origin_request for
// a page of another origin that comes with a cookie or would be given one, 405, 413,
// 415, what [Config.Claims] says, and 503 if the store failed. None removes
// cookies: a login may have replaced them while the request was under way.
func (h *Handler) Refresh(w http.ResponseWriter, r *http.Request) {
	texts, err := h.refreshTokens(w, r)
	var t Tokens
	if err == nil {
		t, err = h.manager.exchange(r.Context(), texts, h.address(r))
	}
	if err == nil {
		err = h.answer(w, r, t, usher.CodeTokenRefreshed, "Token refreshed.")
	}
	h.fail(w, r, err)
}

// session returns the access token of this Issuer that r was let in with, or nil.
func (h *Handler) session(r *http.Request) *jwtauth.Token {
	p, _ := usher.PrincipalFrom(r.Context())
	t, _ := p.Details.(*jwtauth.Token)
	if t == nil || t.Issuer != h.manager.name || t.SessionID == "" || t.Subject == "" {
		return nil
	}
	return t
}

// refreshTokens returns the refresh tokens that r carries: the one in its body, or
// else those in cookies.
func (h *Handler) refreshTokens(w http.ResponseWriter, r *http.Request) ([]string, error) {
	if err := checkMethod(w, r); err != nil {
		return nil, err
	}
	body, err := jsonbody.Read(w, r, h.maxBody, false)
	if err != nil {
		return nil, err
	}
	var text string
	given := body.Optional("refresh_token", &text)
	if err := body.Fault(); err != nil {
		return nil, err
	}
	switch {
	case text != "":
		if h.refreshCookie == nil && h.accessCookie == nil {
			return []string{text}, nil
		}
		// It may be another's, whose session the browser would be given.
		return []string{text}, h.checkOrigin(r)
	case given:
		return nil, jsonbody.Invalid(usher.Field{Name: "refresh_token", Message: "'refresh_token' must not be empty."})
	}
	texts := h.inCookies(r, bearer.MaxCookies+1)
	if len(texts) == 0 {
		return nil, errNoRefreshToken
	}
	return texts, h.checkOrigin(r)
}

var errNoRefreshToken = jsonbody.Invalid(usher.Field{Name: "refresh_token", Message: "'refresh_token' is required."})

// inCookies returns the refresh tokens that are in cookies of r, but no more than most.
func (h *Handler) inCookies(r *http.Request, most int) []string {
	if h.refreshCookie == nil {
		return nil
	}
	return bearer.Cookies(r, h.refreshCookie.Name, most)
}

// checkMethod keeps out the methods that pages of other sites can use unasked.
func checkMethod(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodPost {
		return nil
	}
	w.Header()["Allow"] = []string{http.MethodPost}
	return &usher.Error{Status: http.StatusMethodNotAllowed, Code: usher.CodeMethodNotAllowed}
}

// checkOrigin refuses requests that the page of another origin has made.
func (h *Handler) checkOrigin(r *http.Request) error {
	if err := h.origins.Check(r); err != nil {
		return &usher.Error{
			Status:  http.StatusForbidden,
			Code:    usher.CodeCrossOriginRequest,
			Message: "Pages of this origin may not do this.",
			Cause:   err,
		}
	}
	return nil
}

// answer answers with tokens, and notes that it did.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, t Tokens, code, message string) error {
	// Encoded before anything is sent, so that an answer that fails was not
	// delivered.
	var data []byte
	err := guard.Run(func() (err error) { data, err = json.Marshal(h.view(t)); return err })
	if p, ok := errors.AsType[*guard.PanicError](err); ok {
		// What it panicked with may quote a token.
		err = fmt.Errorf("session: TokensView panicked with a %T", p.Value)
	}
	if err != nil {
		return &usher.Error{Status: http.StatusInternalServerError, Code: usher.CodeInternal, Cause: err}
	}
	if h.refreshCookie != nil {
		http.SetCookie(w, h.refreshCookie.make(t.RefreshToken(), t.RefreshLifetime))
	}
	if h.accessCookie != nil {
		http.SetCookie(w, h.accessCookie.make(t.AccessToken(), t.AccessLifetime))
	}
	h.respond(w, r, usher.Reply{Code: code, Message: message, Data: json.RawMessage(data)})
	// It fails where the client has hung up, and may where it has not: then the
	// client is treated with more patience.
	if err := h.manager.Delivered(r.Context(), t); err != nil && r.Context().Err() == nil {
		h.manager.reporter.Error(r.Context(), err)
	}
	return nil
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

// fail answers with err if there is one.
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
