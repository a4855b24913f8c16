package ushergin_test

import (
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/adapters/adaptertest"
	"github.com/usher-go/usher/adapters/ushergin"
)

var router = adaptertest.Router{
	Name:    "gin",
	Handler: adapter{ushergin.Middleware, ushergin.Adapt}.engine,
	Differences: map[string]adaptertest.Difference{
		"10.body": {
			Reason:   "Gin writes its own 404 after the whole chain; an Engine.NoRoute handler is seen.",
			Observed: `captured body is "", want "404 page not found"`,
		},
		"18.recovery": {
			Reason:   "gin.Recovery takes http.ErrAbortHandler for a broken connection and goes on.",
			Observed: "the client got 200",
		},
	},
	Lacks: map[string]string{
		"9.body":  "Gin has no central error handler.",
		"9.calls": "Gin has no central error handler.",
	},
	Declaration: "testdata/gin.json",
}

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode)
	gin.DefaultErrorWriter = io.Discard
	os.Exit(m.Run())
}

func TestRouter(t *testing.T) { adaptertest.Test(t, router) }

func TestAllocs(t *testing.T) { adaptertest.TestAllocs(t, router) }

// An adapter mounts middlewares on an engine.
type adapter struct {
	middleware func(usher.Middleware) gin.HandlerFunc
	foreign    func(func(http.Handler) http.Handler) gin.HandlerFunc
}

func (a adapter) engine(_ testing.TB, app adaptertest.App) http.Handler {
	engine := gin.New()
	engine.HandleMethodNotAllowed = true
	if app.PathValues {
		engine.Use(ushergin.PathValues)
	}
	engine.Use(a.middlewares(app.Use)...)
	if app.Failures {
		engine.Use(ushergin.Errors)
		engine.NoRoute(ushergin.NoRoute)
		engine.NoMethod(ushergin.NoMethod)
	}
	if app.NotFound != nil {
		engine.NoRoute(gin.WrapH(app.NotFound))
	}
	if app.MethodNotAllowed != nil {
		engine.NoMethod(gin.WrapH(app.MethodNotAllowed))
	}
	a.mount(&engine.RouterGroup, app.Routes)
	group := engine.Group(app.Group.Prefix, a.middlewares(app.Group.Use)...)
	a.mount(group, app.Group.Routes)
	return engine
}

func (a adapter) mount(group *gin.RouterGroup, routes []adaptertest.Route) {
	pattern := strings.NewReplacer("{", ":", "}", "")
	for _, r := range routes {
		handlers := append(a.middlewares(r.Use), handler(r))
		group.Handle(r.Method, pattern.Replace(r.Pattern), handlers...)
		if r.Method == http.MethodGet {
			group.Handle(http.MethodHead, pattern.Replace(r.Pattern), handlers...)
		}
	}
}

func handler(r adaptertest.Route) gin.HandlerFunc {
	if r.Native == nil {
		return gin.WrapH(r.Handler)
	}
	return func(c *gin.Context) {
		if err := r.Native(context{c}); err != nil {
			_ = c.Error(err)
		}
	}
}

func (a adapter) middlewares(steps []adaptertest.Step) []gin.HandlerFunc {
	handlers := make([]gin.HandlerFunc, 0, len(steps))
	for _, s := range steps {
		switch {
		case s.Usher != nil:
			handlers = append(handlers, a.middleware(s.Usher))
		case s.Foreign != nil:
			handlers = append(handlers, a.foreign(s.Foreign))
		case s.Native != nil:
			handlers = append(handlers, func(c *gin.Context) {
				if err := s.Native(context{c}, func() error { c.Next(); return nil }); err != nil {
					_ = c.Error(err)
				}
			})
		case s.Recover:
			handlers = append(handlers, gin.Recovery())
		case s.Compress:
			handlers = append(handlers, compress)
		}
	}
	return handlers
}

// compress does what compression middlewares for gin do; gin itself has none.
func compress(c *gin.Context) {
	outer := c.Writer
	zip := gzip.NewWriter(outer)
	c.Header("Content-Encoding", "gzip")
	c.Writer = gzipWriter{outer, zip}
	c.Next()
	if outer.Written() {
		_ = zip.Close()
	}
	c.Writer = outer
}

type gzipWriter struct {
	gin.ResponseWriter
	zip *gzip.Writer
}

func (w gzipWriter) Write(p []byte) (int, error)       { return w.zip.Write(p) }
func (w gzipWriter) WriteString(s string) (int, error) { return w.zip.Write([]byte(s)) }

// context is the Context of handlers on gin.
type context struct{ *gin.Context }

func (c context) Request() *http.Request             { return c.Context.Request }
func (c context) Writer() http.ResponseWriter        { return c.Context.Writer }
func (c context) Principal() (usher.Principal, bool) { return ushergin.PrincipalFrom(c.Context) }

func (c context) JSON(status int, v any) error {
	c.Context.JSON(status, v)
	return nil
}

func (c context) String(status int, text string) error {
	c.Context.String(status, "%s", text)
	return nil
}

func (c context) Blob(status int, mediaType string, body []byte) error {
	c.Data(status, mediaType, body)
	return nil
}

func (c context) Status(status int) error {
	c.Context.Status(status)
	return nil
}

func (c context) File(path string) error {
	c.Context.File(path)
	return nil
}

func (c context) Stream(step func(io.Writer) bool) error {
	c.Context.Stream(step)
	return nil
}

func (c context) Fail(status int) error {
	_ = c.AbortWithError(status, errors.New("an error of a handler"))
	return nil
}

func (c context) Return(err error) error {
	_ = c.Error(err)
	return nil
}

func (c context) Progress() adaptertest.Progress {
	w := c.Context.Writer
	return adaptertest.Progress{Status: w.Status(), Size: int64(w.Size()), Written: w.Written()}
}
