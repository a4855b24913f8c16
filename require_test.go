package usher_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/usher-go/usher"
)

func TestRequire(t *testing.T) {
	reader := &usher.Principal{ID: "reader", Kind: usher.KindAPIKey, Level: usher.LevelReadOnly, Scopes: []string{"notes:read"}}
	writer := &usher.Principal{ID: "writer", Kind: usher.KindJWT, Level: usher.LevelReadWrite, Scopes: []string{"notes:read", "notes:write"}}
	nobody := &usher.Principal{ID: "nobody"}
	levels := usher.Requirement{
		Level:        usher.LevelReadOnly,
		MethodLevels: map[string]usher.Level{http.MethodPost: usher.LevelReadWrite, http.MethodDelete: usher.LevelFull, http.MethodHead: usher.LevelNone},
	}
	scopes := usher.Requirement{Scopes: []string{"notes:read", "notes:write"}}
	kinds := usher.Requirement{Kinds: []usher.Kind{usher.KindOAuth, usher.KindJWT}}
	tests := map[string]struct {
		want      usher.Requirement
		method    string
		principal *usher.Principal
		status    int
		code      string
		challenge string
	}{
		"nothing, but nobody called":        {usher.Requirement{}, "GET", nil, 401, "missing_credential", "Bearer"},
		"nothing, and somebody did":         {usher.Requirement{}, "GET", nobody, 200, "", ""},
		"level: enough":                     {levels, "GET", reader, 200, "", ""},
		"level: none":                       {levels, "GET", nobody, 403, "insufficient_permission", ""},
		"level of a method: too low":        {levels, "POST", reader, 403, "insufficient_permission", ""},
		"level of a method: enough":         {levels, "POST", writer, 200, "", ""},
		"level of a method: still too low":  {levels, "DELETE", writer, 403, "insufficient_permission", ""},
		"level of a method may be lower":    {levels, "HEAD", nobody, 200, "", ""},
		"level of a method: nobody":         {levels, "HEAD", nil, 401, "missing_credential", "Bearer"},
		"scopes: all":                       {scopes, "GET", writer, 200, "", ""},
		"scopes: one is missing":            {scopes, "GET", reader, 403, "insufficient_scope", `Bearer error="insufficient_scope", scope="notes:read notes:write"`},
		"scopes: none granted":              {scopes, "GET", nobody, 403, "insufficient_scope", `Bearer error="insufficient_scope", scope="notes:read notes:write"`},
		"kinds: one of them":                {kinds, "GET", writer, 200, "", ""},
		"kinds: another":                    {kinds, "GET", reader, 403, "wrong_credential_kind", ""},
		"kinds: no kind":                    {kinds, "GET", nobody, 403, "wrong_credential_kind", ""},
		"a level beyond the known is a lot": {usher.Requirement{Level: 200}, "GET", &usher.Principal{Level: usher.LevelFull}, 403, "insufficient_permission", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(tt.method, "/", nil)
			if tt.principal != nil {
				r = usher.WithPrincipal(r, tt.principal)
			}
			for way, run := range ways {
				called := false
				w := serve(run(usher.Require(tt.want), http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called = true })), r)
				if w.Code != tt.status || called != (tt.status == 200) {
					t.Errorf("%s: status %d, called %t", way, w.Code, called)
				}
				equal(t, way+": code", tt.code, codeOf(t, w))
				equal(t, way+": challenge", tt.challenge, w.Header().Get("WWW-Authenticate"))
			}
		})
	}
}

func TestRequirementIsCopied(t *testing.T) {
	want := usher.Requirement{
		Kinds: []usher.Kind{usher.KindJWT}, Scopes: []string{"a"}, MethodLevels: map[string]usher.Level{"GET": usher.LevelFull},
	}
	m := usher.Require(want)
	want.Kinds[0], want.Scopes[0] = usher.KindAPIKey, "b"
	want.MethodLevels["GET"] = usher.LevelNone
	p := &usher.Principal{Kind: usher.KindJWT, Scopes: []string{"a"}, Level: usher.LevelFull}
	if got := serve(m.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})), usher.WithPrincipal(get(), p)).Code; got != http.StatusOK {
		t.Errorf("status %d", got)
	}
	p = &usher.Principal{Kind: usher.KindAPIKey, Scopes: []string{"b"}}
	if got := serve(m.Wrap(http.NotFoundHandler()), usher.WithPrincipal(get(), p)).Code; got != http.StatusForbidden {
		t.Errorf("status %d", got)
	}
}
