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
	// the result must be usable concurrently. Handler leaves out what the framework
	// has no equivalent of, and Lacks declares it.
	Handler func(tb testing.TB, app App) http.Handler
	// Differences are the behaviours in which this router is documented to differ, by
	// their ID, such as "10.body". The suite fails if one of them does not differ.
	Differences map[string]Difference
	// Lacks are the behaviours that this router cannot have, by their ID, with the
	// reason: a framework whose handlers return no error cannot lose one.
	Lacks map[string]string
	// Allocs is how many allocations the adapter may add to a middleware that
	// replaces neither the request nor the writer.
	Allocs int
	// Declaration is a file, by convention testdata/<name>.json, with what this Router
	// declares, for the table of all routers. [Test] compares the file, and with
	// USHER_UPDATE=1 writes it. Empty means none.
	Declaration string
}

// A Difference is a behaviour in which a router is known to differ from net/http.
type Difference struct {
	// Reason explains the difference to users: it stands in the table.
	Reason string
	// Observed is a part of the failure that the suite would report, so that a second
	// fault cannot hide behind the first.
	Observed string
}

// An App is what the suite wants a framework to serve.
type App struct {
	// Use runs for every request, also one that matches no route, as far as the
	// framework can do that. The first is the outermost.
	Use []Step
	// Routes are those outside of the group.
	Routes []Route
	// Group has no routes where a behaviour needs none.
	Group Group
	// PathValues requests parameters by [http.Request.PathValue] as well, where that
	// is an option of the adapter.
	PathValues bool
	// Failures requests what the adapter offers for unmatched routes, wrong methods
	// and errors of handlers, which then respond by [usher.Fail]. Where that is a
	// middleware, it runs inside Use and outside everything else.
	Failures bool
	// NotFound serves requests that match no route, and MethodNotAllowed those that
	// match only routes with other methods; Allow is set before the latter is called.
	// Nil means the framework's own, or with Failures the adapter's.
	NotFound, MethodNotAllowed http.Handler
	// OnError, if not nil, replaces the central error handler in frameworks that have
	// one.
	OnError func(c Context, err error)
}

// A Group is a group of routes whose patterns have a common prefix.
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
	// Native is the handler in the framework's own form. If it is nil, Handler serves
	// the route.
	Native func(c Context) error
	// Handler is a handler of net/http, mounted as users of the framework do.
	Handler http.Handler
}

// A Step is a middleware of one of several kinds; exactly one field is set.
type Step struct {
	// Usher is mounted through the adapter.
	Usher usher.Middleware
	// Foreign is a middleware of net/http, mounted through the adapter's second entry
	// point.
	Foreign func(http.Handler) http.Handler
	// Native is a middleware in the framework's own form. It returns the error of
	// next, which is nil in frameworks whose handlers return none.
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
// A Context of a framework that reports whether a chain was cut short also has
// IsAborted() bool, which the suite then calls.
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
	// Status responds without a body.
	Status(status int) error
	File(path string) error
	// Stream calls step until it returns false, and flushes after each call.
	Stream(step func(w io.Writer) bool) error
	// Fail fails with a status by the framework's own kind of error, for instance
	// echo.NewHTTPError(status) or gin's AbortWithError.
	Fail(status int) error
	// Return passes an error on to what renders errors, for instance by gin's Error.
	Return(err error) error

	// Progress is what the framework's writer reports of the response so far.
	Progress() Progress
}

// A Progress is what a writer reports of a response.
type Progress struct {
	Status  int
	Size    int64 // of the body, in bytes
	Written bool  // whether the header is written
}
