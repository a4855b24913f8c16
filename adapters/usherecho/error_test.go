package usherecho_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/labstack/echo/v5"
	"github.com/labstack/echo/v5/middleware"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/adapters/usherecho"
	"github.com/usher-go/usher/envelope"
)

// structured is an error that has the body for echo's own handler.
type structured struct{}

func (structured) Error() string                { return "private" }
func (structured) StatusCode() int              { return http.StatusConflict }
func (structured) MarshalJSON() ([]byte, error) { return []byte(`{"version":7}`), nil }

const notValid = `{"title":"Bad Request","status":400,"detail":"The request is not valid.","code":"validation_failed"`

func TestHTTPErrorHandler(t *testing.T) {
	private := errors.New("private")
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"of echo's router", echo.ErrNotFound, `{"title":"Not Found","status":404,"code":"not_found"}`},
		{"with a message", echo.NewHTTPError(400, "no title"), `{"title":"Bad Request","status":400,"detail":"no title"}`},
		{"without a message", echo.NewHTTPError(418, ""), `{"title":"I'm a teapot","status":418}`},
		{"wrapped", fmt.Errorf("private: %w", echo.ErrForbidden), `{"title":"Forbidden","status":403}`},
		{"around a private one", echo.NewHTTPError(409, "taken").Wrap(private), `{"title":"Conflict","status":409,"detail":"taken"}`},
		{"a field that cannot be bound", echo.NewBindingError("id", []string{"x"}, "not a number", private), `{"title":"Bad Request","status":400,"detail":"not a number","code":"validation_failed","param":"id","errors":[{"field":"id","message":"not a number"}]}`},
		{"with a body of its own", structured{}, `{"title":"Conflict","status":409,"details":{"version":7}}`},
		{"a field without a value", echo.NewBindingError("id", nil, "required field value is empty", nil), notValid + `,"param":"id","errors":[{"field":"id","message":"'id' is required."}]}`},
		{"a field of another type", echo.NewBindingError("id", nil, "failed to bind field value to int64", private), notValid + `,"param":"id","errors":[{"field":"id","message":"'id' must be an integer."}]}`},
		{"the text of an error is private", echo.ErrBadRequest.Wrap(private), notValid + `}`},
		{"a message of the program about JSON", echo.NewHTTPError(422, "send an order").Wrap(io.ErrUnexpectedEOF), `{"title":"Unprocessable Entity","status":422,"detail":"send an order","code":"validation_failed"}`},
		{"JSON of another document", io.ErrUnexpectedEOF, `{"title":"Internal Server Error","status":500,"code":"internal"}`},
		{"a message from 500 on is private", echo.NewHTTPError(500, "pq: private"), `{"title":"Internal Server Error","status":500,"code":"internal"}`},
		{"also at 503", echo.NewHTTPError(503, "private"), `{"title":"Service Unavailable","status":503}`},
		{"any other error", private, `{"title":"Internal Server Error","status":500,"code":"internal"}`},
		{"a status that is none of an error", echo.NewHTTPError(200, "private?"), `{"title":"Internal Server Error","status":500,"code":"internal"}`},
		{
			"of usher, within one of echo",
			echo.NewHTTPError(400, "bad").Wrap(&usher.Error{Status: 402, Code: "no_credit"}),
			`{"title":"Payment Required","status":402,"code":"no_credit"}`,
		},
		{"a body that is too large", echo.ErrBadRequest.Wrap(&http.MaxBytesError{Limit: 1}), `{"title":"Request Entity Too Large","status":413,"detail":"The request body is too large.","code":"payload_too_large"}`},
		{"the same by its status", echo.ErrStatusRequestEntityTooLarge, `{"title":"Request Entity Too Large","status":413,"code":"payload_too_large"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := responseTo(func(*echo.Context) error { return tt.err })
			var got, want map[string]any
			if err := json.Unmarshal([]byte(tt.want), &want); err != nil {
				t.Fatal(err)
			}
			want["type"] = "about:blank"
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
				t.Fatalf("%v: %s", err, w.Body)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if float64(w.Code) != got["status"] || w.Header().Get("Content-Type") != "application/problem+json" {
				t.Errorf("status %d, header %v", w.Code, w.Header())
			}
		})
	}
}

// responseTo returns the response to a request for h.
func responseTo(h echo.HandlerFunc, m ...echo.MiddlewareFunc) *httptest.ResponseRecorder {
	e := echo.New()
	e.HTTPErrorHandler = usherecho.HTTPErrorHandler
	e.GET("/", h, m...)
	w := httptest.NewRecorder()
	e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	return w
}

// Details are for shapes that have room for them.
func TestHTTPErrorHandlerPassesDetailsOn(t *testing.T) {
	env, err := envelope.New(envelope.Config{Shape: envelope.Data()})
	if err != nil {
		t.Fatal(err)
	}
	w := responseTo(func(*echo.Context) error { return structured{} }, usherecho.Middleware(env))
	const want = `{"error":{"code":"conflict","message":"Conflict","details":{"version":7}}}`
	if w.Body.String() != want {
		t.Errorf("body %s, want %s", w.Body, want)
	}
}

func TestHTTPErrorHandlerKeepsWhatIsSent(t *testing.T) {
	w := responseTo(func(c *echo.Context) error {
		_ = c.String(http.StatusAccepted, "sent")
		return errors.New("later")
	})
	if w.Code != http.StatusAccepted || w.Body.String() != "sent" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestHTTPErrorHandlerKeepsTheHeader(t *testing.T) {
	w := responseTo(func(c *echo.Context) error {
		h := c.Response().Header()
		h.Set("WWW-Authenticate", `Basic realm="x"`)
		h.Set("Retry-After", "7")
		h.Set("ETag", `"of a success"`)
		return echo.ErrUnauthorized
	})
	if h := w.Header(); h.Get("WWW-Authenticate") != `Basic realm="x"` || h.Get("Retry-After") != "7" || h.Get("ETag") != "" {
		t.Errorf("header %v", h)
	}
}

// Echo's own handler responds with 400.
func TestBindOfABodyThatIsTooLarge(t *testing.T) {
	e := echo.New()
	e.HTTPErrorHandler = usherecho.HTTPErrorHandler
	e.POST("/", func(c *echo.Context) error {
		c.Request().Body = http.MaxBytesReader(c.Response(), c.Request().Body, 10)
		return c.Bind(new(struct{ Text string }))
	})
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, "/", io.MultiReader(strings.NewReader(`{"Text":"`), strings.NewReader(strings.Repeat("x", 100))))
	r.Header.Set("Content-Type", "application/json")
	r.ContentLength = 200
	e.ServeHTTP(w, r)
	if w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// What Context.Bind refuses names the fields as clients know them, and no type of the
// program.
func TestBindNamesTheFields(t *testing.T) {
	e := echo.New()
	e.HTTPErrorHandler = usherecho.HTTPErrorHandler
	e.POST("/:id", func(c *echo.Context) error {
		return c.Bind(&struct {
			ID    int    `json:"-" param:"id"`
			Title string `json:"title"`
			Lines []struct {
				Quantity int8 `json:"quantity"`
			} `json:"lines"`
		}{})
	})
	const notJSON = `{"type":"about:blank","title":"Bad Request","status":400,"detail":"The request body is not valid JSON.","code":"validation_failed"}`
	invalid := strings.Replace(notValid, "{", `{"type":"about:blank",`, 1)
	for _, tt := range []struct{ path, body, want string }{
		{"/7", `{`, notJSON},
		{"/7", `no JSON`, notJSON},
		{"/x", `{}`, invalid + `}`},
		{"/7", `[]`, strings.Replace(notJSON, "is not valid JSON", "must be an object", 1)},
		{"/7", `{"title":7}`, invalid + `,"errors":[{"field":"title","message":"'title' must be a string."}]}`},
		{"/7", `{"lines":[{"quantity":1000}]}`, invalid + `,"errors":[{"field":"lines.quantity","message":"'lines.quantity' is out of range."}]}`},
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, tt.path, strings.NewReader(tt.body))
		r.Header.Set("Content-Type", "application/json")
		e.ServeHTTP(w, r)
		if w.Code != http.StatusBadRequest || w.Body.String() != tt.want {
			t.Errorf("%s %s: %d %s\nwant %s", tt.path, tt.body, w.Code, w.Body, tt.want)
		}
	}
}

// BodyLimit has its status, even if the binder of echo has wrapped its error.
func TestBindOfABodyOverALimitOfEcho(t *testing.T) {
	e := echo.New()
	e.HTTPErrorHandler = usherecho.HTTPErrorHandler
	e.POST("/", func(c *echo.Context) error { return c.Bind(new(struct{ Text string })) }, middleware.BodyLimit(10))
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, "/", io.MultiReader(strings.NewReader(`{"Text":"`), strings.NewReader(strings.Repeat("x", 100))))
	r.Header.Set("Content-Type", "application/json")
	r.ContentLength = -1
	e.ServeHTTP(w, r)
	if w.Code != http.StatusRequestEntityTooLarge || !strings.Contains(w.Body.String(), usher.CodePayloadTooLarge) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
