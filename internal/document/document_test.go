package document_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/usher-go/usher/internal/document"
)

func serve(method, ifNoneMatch string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "/", nil)
	if ifNoneMatch != "" {
		r.Header.Set("If-None-Match", ifNoneMatch)
	}
	w := httptest.NewRecorder()
	document.Serve(w, r, document.Document{Body: []byte(`{"a":1}`), MaxAge: time.Hour, AnyOrigin: true},
		func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusMethodNotAllowed) })
	return w
}

// Without AnyOrigin the browser decides by the rules of a single origin.
func TestServeForOneOrigin(t *testing.T) {
	for method, status := range map[string]int{http.MethodGet: 200, http.MethodOptions: 405, http.MethodPost: 405} {
		w := httptest.NewRecorder()
		document.Serve(w, httptest.NewRequest(method, "/", nil), document.Document{Body: []byte(`{"a":1}`)},
			func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusMethodNotAllowed) })
		h := w.Header()
		if w.Code != status || h.Get("Access-Control-Allow-Origin") != "" || status == 405 && h.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d %v", method, w.Code, h)
		}
	}
}

func TestServe(t *testing.T) {
	etag := serve(http.MethodGet, "").Header().Get("Etag")
	tests := map[string]struct {
		method, ifNoneMatch string
		status              int
		body                string
	}{
		"a GET":                         {http.MethodGet, "", 200, `{"a":1}`},
		"a HEAD":                        {http.MethodHead, "", 200, `{"a":1}`}, // net/http leaves the body out
		"another entity tag":            {http.MethodGet, `"x"`, 200, `{"a":1}`},
		"its entity tag":                {http.MethodGet, etag, 304, ""},
		"its entity tag, weak":          {http.MethodGet, "W/" + etag, 304, ""},
		"its entity tag among others":   {http.MethodGet, `"x", ` + etag, 304, ""},
		"any entity tag":                {http.MethodHead, "*", 304, ""},
		"a method that changes nothing": {http.MethodPost, etag, 405, ""},
		"a preflight request":           {http.MethodOptions, etag, 204, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := serve(tt.method, tt.ifNoneMatch)
			if w.Code != tt.status || w.Body.String() != tt.body {
				t.Errorf("%d %s, want %d %s", w.Code, w.Body, tt.status, tt.body)
			}
			h := w.Header()
			if h.Get("Access-Control-Allow-Origin") != "*" {
				t.Errorf("no page can read it: header %v", h)
			}
			if tt.status == http.StatusNoContent && (h.Get("Access-Control-Allow-Methods") != "GET, HEAD" ||
				h.Get("Access-Control-Allow-Headers") != "*" || h.Get("Access-Control-Max-Age") != "86400") {
				t.Errorf("header %v", h)
			}
			if tt.status == http.StatusMethodNotAllowed || tt.status == http.StatusNoContent {
				if h.Get("Allow") != "GET, HEAD, OPTIONS" || h.Get("Etag") != "" || h.Get("Cache-Control") != "" {
					t.Errorf("header %v", h)
				}
				return
			}
			if h.Get("Etag") != etag || h.Get("Cache-Control") != "public, max-age=3600" {
				t.Errorf("header %v", h)
			}
			if tt.status == http.StatusOK && (h.Get("Content-Type") != "application/json" || h.Get("X-Content-Type-Options") != "nosniff") {
				t.Errorf("header %v", h)
			}
		})
	}
}
