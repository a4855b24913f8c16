package adaptertest

import (
	"io"
	"net/http"
	"testing"

	"github.com/usher-go/usher"
)

// A Router is a framework together with its adapter, as the suite sees it.
type Router struct {
	// Name is that of the framework in names of tests and in the table, for
	// instance "gin".
	Name string
	// Handler builds the server that app describes. It is called for every test;
	// the result must be usable concurrently. What app asks for and the framework
	// has nothing like, Handler leaves out and Lacks declares.
	Handler func(tb testing.TB, app App) http.Handler
	// Differences are the behaviours that are documented to be others here, by
	// their ID, such as "10.body". The suite fails if one of them is not different.
	Differences map[string]Difference
	// Lacks are the behaviours that cannot be asked for here, by their ID, with the
	// reason: a framework whose handlers return no error cannot lose one.
	Lacks map[string]string
	// Allocs is how many allocations the adapter may add to a middleware that
	// neither replaces the request nor the writer.
	Allocs int
	// Declaration is a file, mostly testdata/<name>.json, which [Test] keeps equal to
	// what this Router declares, for the table of all routers. With USHER_UPDATE=1
	// it is written. Empty means none.
	Declaration string
}

// A Difference is a behaviour that is not as elsewhere, and known to be so.
type Difference struct {
	// Reason says why, to users: it stands in the table.
	Reason string
	// Observed is a part of what the suite reports in place of the behaviour, so that
	// a second fault cannot hide behind the first.
	Observed string
}

// An App is what the suite wants a framework to serve.
type App struct {
	// Use stands around every request, also one that matches no route, as far as
	// the framework can do that. The first is the outermost.
	Use []Step
	// Routes are those outside of the group.
	Routes []Route
	// Group has no routes if the suite needs none.
	Group Group
	// PathValues asks for parameters by [http.Request.PathValue] as well, where
	// that is an option of the adapter.
	PathValues bool
	// Failures asks for what the adapter offers to answer unmatched routes, wrong
	// methods and errors of handlers through [usher.Fail]. Where that is a
	// middleware it stands inside Use and outside everything else.
	Failures bool
	// NotFound and MethodNotAllowed answer what no route matches, and what only
	// routes with other methods match; Allow is set before the latter is called.
	// Nil means the framework's own, or with Failures the adapter's.
	NotFound, MethodNotAllowed http.Handler
	// OnError, if not nil, takes the place of the central error handler in
	// frameworks that have one.
	OnError func(c Context, err error)
}

// A Group is a group of routes with a common beginning of their patterns.
type Group struct {
	Prefix string // for instance "/group"
	Use    []Step
	Routes []Route
}

// A Route is one route. A GET route also takes HEAD.
type Route struct {
	Method string
	// Pattern is a path with parameters in braces, such as /items/{id}; "/" is the
	// root alone.
	Pattern string
	Use     []Step
	// Native is the handler, in the framework's own form; if it is nil, Handler is.
	Native func(c Context) error
	// Handler is a handler of net/http, to be mounted as users of the framework do.
	Handler http.Handler
}

// A Step is a middleware of one of several kinds; exactly one field is set.
type Step struct {
	// Usher is to be mounted through the adapter.
	Usher usher.Middleware
	// Foreign is a middleware of net/http, to be mounted through the adapter's second
	// entry point.
	Foreign func(http.Handler) http.Handler
	// Native is a middleware in the framework's own form. The error of next is to
	// be returned where the framework has such a thing, and is nil elsewhere.
	Native func(c Context, next func() error) error
	// Recover is the framework's own middleware that turns panics into 500.
	Recover bool
	// Compress is the framework's own middleware that compresses bodies with gzip,
	// or any other if it has none.
	Compress bool
}

// A Context is what handlers and middlewares of the framework work with. Its
// methods do what users of the framework would write.
//
// A Context of a framework that can tell whether a chain was cut short also has
// IsAborted() bool; the suite then asks it.
type Context interface {
	Request() *http.Request
	Writer() http.ResponseWriter
	// Principal is usher's principal by the accessor that the adapter documents.
	Principal() (usher.Principal, bool)
	// Param is a parameter of the path by the framework's accessor.
	Param(name string) string

	JSON(status int, v any) error
	String(status int, text string) error
	Blob(status int, mediaType string, body []byte) error
	// Status answers without a body.
	Status(status int) error
	File(path string) error
	// Stream calls step until it returns false, and flushes after each call.
	Stream(step func(w io.Writer) bool) error
	// Fail fails with a status by the framework's own kind of error, for instance
	// echo.NewHTTPError(status) or gin's AbortWithError.
	Fail(status int) error
	// Return hands over an error of the handler for others to answer, for instance
	// by gin's Error.
	Return(err error) error

	// Answer is what the framework's writer knows about the answer so far.
	Answer() Answer
}

// An Answer is what a writer knows about an answer.
type Answer struct {
	Status  int
	Size    int64 // of the body, in bytes
	Written bool  // whether the header is written
}
