package adaptertest

import (
	"io"
	"net/http"
	"testing"

	"github.com/usher-go/usher"
)

// A Router is a framework together with its adapter, as the suite sees it.
type Router struct {
	// Name is the name of the framework in test names and in the table, for instance
	// "gin".
	Name string
	// Handler builds the server that app describes. It is called for every test; the
	// result must be safe for concurrent use. If the framework has no equivalent for
	// something, Handler leaves it out, and Lacks declares it.
	Handler func(tb testing.TB, app App) http.Handler
	// Differences are the behaviours in which this router is documented to differ, by ID,
	// such as "10.body". The suite fails if one of them does not differ.
	Differences map[string]Difference
	// Lacks are the behaviours that this router cannot have, by ID, each with the reason:
	// a framework whose handlers return no error, for instance, cannot lose one.
	Lacks map[string]string
	// Allocs is how many allocations the adapter may add to a middleware that
	// replaces neither the request nor the writer.
	Allocs int
	// Declaration is a file, by convention testdata/<name>.json, with what this Router
	// declares, for the table of all routers. [Test] compares the file with the Router;
	// with USHER_UPDATE=1 it writes the file. Empty means no file.
	Declaration string
}

// A Difference is a behaviour in which a router is known to differ from net/http.
type Difference struct {
	// Reason explains the difference to users. The table shows it.
	Reason string
	// Observed is part of the failure that the suite would report, so that the difference
	// cannot hide a second fault.
	Observed string
}

// An App describes a server that the suite asks a framework to build.
type App struct {
	// Use runs for every request, even one that matches no route if the framework
	// supports that. The first Step is the outermost.
	Use []Step
	// Routes are the routes outside the group.
	Routes []Route
	// Group has no routes if a behaviour does not need a group.
	Group Group
	// PathValues asks for parameters to be available through [http.Request.PathValue]
	// too, if that is an option of the adapter.
	PathValues bool
	// Failures asks for what the adapter offers for unmatched routes, wrong methods and
	// errors of handlers, so that [usher.Fail] responds to all of these. If the adapter
	// offers a middleware, it runs inside Use and outside everything else.
	Failures bool
	// NotFound serves requests that match no route, and MethodNotAllowed those that match
	// only routes with other methods; Allow is set before MethodNotAllowed is called. Nil
	// means the framework's own handler, or with Failures the adapter's.
	NotFound, MethodNotAllowed http.Handler
	// OnError, if not nil, replaces the central error handler of a framework that has
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
	// Native is a handler in the framework's own form. If it is nil, Handler serves the
	// route.
	Native func(c Context) error
	// Handler is a net/http handler, mounted as users of the framework would mount it.
	Handler http.Handler
}

// A Step is a middleware of one of several kinds; exactly one field is set.
type Step struct {
	// Usher is mounted through the adapter.
	Usher usher.Middleware
	// Foreign is a net/http middleware, mounted through the adapter's second entry point.
	Foreign func(http.Handler) http.Handler
	// Native is a middleware in the framework's own form. It returns the error of next,
	// which is nil in a framework whose handlers return no error.
	Native func(c Context, next func() error) error
	// Recover is the framework's own middleware that turns panics into 500.
	Recover bool
	// Compress is the framework's own middleware that compresses bodies with gzip, or any
	// other such middleware if the framework has none.
	Compress bool
}

// A Context is what handlers and middlewares of the framework receive. Its methods do
// what users of the framework would write.
//
// A Context of a framework that reports whether a chain was cut short also has
// IsAborted() bool, which the suite then calls.
type Context interface {
	Request() *http.Request
	Writer() http.ResponseWriter
	// Principal returns usher's principal through the accessor that the adapter documents.
	Principal() (usher.Principal, bool)
	// Param returns a parameter of the path through the framework's accessor.
	Param(name string) string

	JSON(status int, v any) error
	String(status int, text string) error
	Blob(status int, mediaType string, body []byte) error
	// Status responds without a body.
	Status(status int) error
	File(path string) error
	// Stream calls step until it returns false, and flushes after each call.
	Stream(step func(w io.Writer) bool) error
	// Fail fails with a status through the framework's own kind of error, for instance
	// echo.NewHTTPError(status) or gin's AbortWithError.
	Fail(status int) error
	// Return passes an error to whatever renders errors, for instance with gin's Error.
	Return(err error) error

	// Progress returns what the framework's writer reports about the response so far.
	Progress() Progress
}

// A Progress is what a writer reports about a response.
type Progress struct {
	Status  int
	Size    int64 // of the body, in bytes
	Written bool  // whether the header is written
}
