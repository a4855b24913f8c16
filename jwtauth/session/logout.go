package session

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/clientip"
	"github.com/usher-go/usher/internal/bearer"
	"github.com/usher-go/usher/jwtauth"
)

// Logout ends each session whose token is in the request, and removes the cookies: 200
// logged_out, without data. The tokens are the member refresh_token of the body, which is
// JSON or a form; up to four RefreshCookies; and the access token that authenticated the
// request, if a [jwtauth.Verifier] is outside the handler.
//
// An expired token or an ended session is not a failure, and neither is a request without
// a token if tokens are delivered in cookies. The sessions of cookies end whatever the
// body has. Failures are 405; 403 cross_origin_request for a page of another origin if
// the browser may have added the token by itself or would lose its cookies; and 503 if
// the store failed, in which case the cookies stay so that the client can retry. If there
// is no token in cookies or from a Verifier, a body without one is 400 validation_failed,
// or 413 if it is too long.
func (h *Handler) Logout(w http.ResponseWriter, r *http.Request) {
	err := checkMethod(w, r)
	if err == nil {
		err = h.checkAmbient(r)
	}
	if err == nil {
		err = h.logout(w, r)
	}
	if err == nil {
		h.removeCookies(w)
		h.respond(w, r, usher.Reply{Code: usher.CodeLoggedOut, Message: "Logged out."})
	}
	h.fail(w, r, err)
}

func (h *Handler) logout(w http.ResponseWriter, r *http.Request) error {
	texts, access := h.inCookies(r, bearer.MaxCookies), h.session(r)
	text, err := h.tokenInBody(w, r)
	switch {
	case text != "":
		texts = append(texts, text)
	case len(texts) == 0 && access == nil && h.refreshCookie == nil:
		return err
	}
	return h.end(r, texts, access)
}

// end ends the sessions of the refresh tokens, and of the access token if that is not
// nil. If one session cannot be ended, the others still are.
func (h *Handler) end(r *http.Request, refreshTokens []string, access *jwtauth.Token) error {
	var errs []error
	address := clientip.Of(r)
	for _, text := range refreshTokens {
		s, err := h.manager.logoutByToken(r.Context(), text, address)
		if !errors.Is(err, ErrNotFound) {
			errs = append(errs, err)
		}
		if access != nil && access.SessionID == s.ID {
			access = nil
		}
	}
	if access != nil {
		_, err := h.manager.logout(r.Context(), Event{
			Action: "logout", SessionID: access.SessionID, Subject: access.Subject, Address: address,
		}, true)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// tokenInBody returns the refresh token in the body of r, or an error.
func (h *Handler) tokenInBody(w http.ResponseWriter, r *http.Request) (string, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.maxBody))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return "", err
	}
	var (
		text    string
		members map[string]json.RawMessage
	)
	if json.Unmarshal(body, &members) == nil {
		_ = json.Unmarshal(members["refresh_token"], &text) // a value of another type is not a token
	} else {
		form := http.Request{Method: http.MethodPost, Header: r.Header, Body: io.NopCloser(bytes.NewReader(body))}
		text = form.PostFormValue("refresh_token")
	}
	if text == "" {
		return "", errNoRefreshToken
	}
	return text, nil
}

// LogoutAll ends all sessions of the subject of the access token that authenticated the
// request, and removes the cookies of this session: 200 logged_out_everywhere, without
// data. Put [usher.Authenticate] with a [jwtauth.Verifier] outside it. A request without
// a session is refused with 401, and one with another kind of credential with 403. A page
// of another origin is refused with 403 too, if the browser may have added the token by
// itself.
func (h *Handler) LogoutAll(w http.ResponseWriter, r *http.Request) {
	err := checkMethod(w, r)
	if err == nil {
		err = h.checkAmbient(r)
	}
	if err == nil {
		err = h.logoutAll(r)
	}
	if err == nil {
		h.removeCookies(w)
		h.respond(w, r, usher.Reply{Code: usher.CodeLoggedOutEverywhere, Message: "Logged out everywhere."})
	}
	h.fail(w, r, err)
}

func (h *Handler) logoutAll(r *http.Request) error {
	t := h.session(r)
	if t == nil {
		if _, ok := usher.PrincipalFrom(r.Context()); ok {
			return &usher.Error{
				Status:  http.StatusForbidden,
				Code:    usher.CodeWrongCredentialKind,
				Message: "This kind of credential is not accepted here.",
			}
		}
		return usher.ErrNoCredential
	}
	_, err := h.manager.logoutAll(r.Context(), Event{Action: "logout_all", Subject: t.Subject, Address: clientip.Of(r)}, t.SessionID)
	return err
}

// checkAmbient refuses requests from pages of other origins that a browser sends without
// a preflight: those with a token that the browser adds by itself, in a cookie of the
// handler or of the authenticator, and those without any token if the response would
// remove cookies, which the browser may not have sent.
func (h *Handler) checkAmbient(r *http.Request) error {
	given, _ := bearer.Token(r.Header, "Bearer", false) // which requires a preflight
	ambient := given == "" && (h.session(r) != nil || h.refreshCookie != nil || h.accessCookie != nil)
	for _, c := range []*Cookie{h.refreshCookie, h.accessCookie} {
		ambient = ambient || c != nil && len(r.CookiesNamed(c.Name)) > 0
	}
	if !ambient {
		return nil
	}
	return h.checkOrigin(r)
}
