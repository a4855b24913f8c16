package vary_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/usher-go/usher/internal/compare"
	"github.com/usher-go/usher/internal/vary"
)

func TestWriterCompletesTheHeader(t *testing.T) {
	tests := map[string]struct {
		names   []string
		private bool
		given   http.Header // the header just before it is sent
		want    http.Header
	}{
		"nothing to add":              {nil, false, nil, nil},
		"private alone":               {nil, true, nil, http.Header{"Cache-Control": {"private"}}},
		"one name":                    {[]string{"A"}, false, nil, http.Header{"Vary": {"A"}}},
		"two names":                   {[]string{"A", "B"}, true, nil, http.Header{"Vary": {"A, B"}, "Cache-Control": {"private"}}},
		"what is given stays":         {[]string{"A"}, true, http.Header{"Vary": {"X"}, "Cache-Control": {"max-age=1"}}, http.Header{"Vary": {"X, A"}, "Cache-Control": {"max-age=1"}}},
		"in any case of letters":      {[]string{"A", "B"}, false, http.Header{"Vary": {"x ,\ta"}}, http.Header{"Vary": {"x ,\ta, B"}}},
		"a name within another":       {[]string{"A"}, false, http.Header{"Vary": {"AB, X-A"}}, http.Header{"Vary": {"AB, X-A, A"}}},
		"all on several lines":        {[]string{"A", "B"}, false, http.Header{"Vary": {"B", "A"}}, http.Header{"Vary": {"B, A"}}},
		"some on several lines":       {[]string{"A", "B"}, false, http.Header{"Vary": {"B", "X"}}, http.Header{"Vary": {"B, X, A"}}},
		"everything is given":         {[]string{"A"}, false, http.Header{"Vary": {"X, *"}}, http.Header{"Vary": {"*"}}},
		"everything on a line":        {[]string{"A"}, false, http.Header{"Vary": {"A", " * "}}, http.Header{"Vary": {"*"}}},
		"everything, and a name":      {[]string{"A", "*"}, false, nil, http.Header{"Vary": {"*"}}},
		"everything stands alone":     {[]string{"*"}, false, http.Header{"Vary": {"X"}}, http.Header{"Vary": {"*"}}},
		"no members":                  {[]string{"A"}, false, http.Header{"Vary": {}}, http.Header{"Vary": {"A"}}},
		"no directives are no choice": {nil, true, http.Header{"Cache-Control": {}}, http.Header{"Cache-Control": {"private"}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for how, send := range map[string]func(http.ResponseWriter){
				"a status": func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) },
				"a body":   func(w http.ResponseWriter) { _, _ = w.Write([]byte("x")) },
				"a string": func(w http.ResponseWriter) { _, _ = io.WriteString(w, "x") },
				"a copy":   func(w http.ResponseWriter) { _, _ = io.Copy(w, strings.NewReader("x")) },
				"a flush":  func(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() },
				"nothing":  func(http.ResponseWriter) {},
			} {
				recorder := httptest.NewRecorder()
				var w vary.Writer
				inner := w.Start(recorder, request(t), vary.On(tt.names), vary.Caller{Private: tt.private})
				if !vary.Passes(inner, recorder) || vary.Passes(recorder, recorder) || vary.Passes(inner, httptest.NewRecorder()) {
					t.Error("the writer is not known as what it is")
				}
				for name, values := range tt.given {
					inner.Header()[name] = append([]string{}, values...)
				}
				send(inner)
				w.End(http.StatusOK)
				got := recorder.Header()
				got.Del("Content-Type")
				if diff := compare.Diff(tt.want, got); diff != "" && len(tt.want)+len(got) > 0 {
					t.Errorf("%s: -want +got:\n%s", how, diff)
				}
			}
		})
	}
}

func request(t *testing.T) *http.Request {
	t.Helper()
	return httptest.NewRequest(http.MethodGet, "/", http.NoBody)
}

// A server is a writer that takes a file in one go, as that of a server does.
type server struct {
	*httptest.ResponseRecorder
	taken int64
}

func (s *server) ReadFrom(src io.Reader) (n int64, err error) {
	n, err = io.Copy(s.ResponseRecorder, src)
	s.taken += n
	return n, err
}

func TestFilesReachTheServersReadFrom(t *testing.T) {
	s := &server{ResponseRecorder: httptest.NewRecorder()}
	var w vary.Writer
	inner := w.Start(s, request(t), vary.On([]string{"A"}), vary.Caller{Private: true})
	if _, err := io.Copy(inner, io.LimitReader(strings.NewReader(strings.Repeat("x", 50_000)), 50_000)); err != nil {
		t.Fatal(err)
	}
	if n := s.Body.Len(); n != 50_000 || s.taken < 40_000 || s.Header().Get("Vary") != "A" {
		t.Errorf("%d of %d bytes in one go, header %v", s.taken, n, s.Header())
	}
}

// A handler may give every response the same values, from one array.
func TestGivenValuesAreNotWrittenTo(t *testing.T) {
	shared := []string{"X", "Y", "Z"}
	recorder := httptest.NewRecorder()
	var w vary.Writer
	w.Start(recorder, request(t), vary.On([]string{"A"}), vary.Caller{}).Header()["Vary"] = shared[:1]
	w.End(http.StatusOK)
	if diff := compare.Diff([]string{"X", "Y", "Z"}, shared); diff != "" || recorder.Header().Get("Vary") != "X, A" {
		t.Errorf("%v %s", recorder.Header(), diff)
	}
}
