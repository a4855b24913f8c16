package ushergin

import (
	"errors"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/usher-go/usher"
)

// FromGin returns the principal of the request, and whether there is one. It works
// on c whether or not gin.Engine.ContextWithFallback is set;
// [usher.PrincipalFrom] with c as the context works only if it is.
func FromGin(c *gin.Context) (usher.Principal, bool) {
	return usher.PrincipalFrom(c.Request.Context())
}

// PathValues is a gin middleware that makes the parameters of the path known to
// [http.Request.PathValue], for what follows: middlewares and handlers of net/http
// that read them. It costs two allocations.
func PathValues(c *gin.Context) {
	for _, p := range c.Params {
		c.Request.SetPathValue(p.Key, p.Value)
	}
}

// NoRoute answers 404 by [usher.Fail], for gin.Engine.NoRoute. Gin's own answer
// is written after the whole chain, where middlewares see its status only.
func NoRoute(c *gin.Context) { usher.NotFound(c.Writer, c.Request) }

// NoMethod answers 405 by [usher.Fail], for gin.Engine.NoMethod. Gin asks for it
// only if Engine.HandleMethodNotAllowed is set, and has then set Allow.
func NoMethod(c *gin.Context) { usher.MethodNotAllowed(c.Writer, c.Request) }

// Errors is a gin middleware that responds for a handler that has left an error in
// c.Errors and has not written: with the last of them, by [usher.Fail]. A
// [*usher.Error] says what the client is told. Another error is private: the status
// is the one that the handler has set, if that is one of an error, else 500.
//
// It stands right inside the envelope. The middlewares further in see that response
// all the same: the innermost one that has replaced the writer gets it before its
// next returns. What adds or changes errors after Context.Next therefore stands
// inside of those.
//
// It costs two allocations, of what it notes in c.
func Errors(c *gin.Context) {
	if renderingOf(c) != pending {
		c.Set(renderingKey{}, pending)
		defer func() {
			if renderingOf(c) == pending {
				c.Set(renderingKey{}, none)
			}
		}()
	}
	c.Next()
	respond(c)
}

// A rendering says what becomes of an error in c.Errors.
type rendering uint8

const (
	none    rendering = iota // nothing that this package knows of
	pending                  // an Errors further out responds with it
	done                     // it is the response
)

// renderingKey is the key of the rendering in a gin.Context.
type renderingKey struct{}

func renderingOf(c *gin.Context) rendering {
	v, _ := c.Get(renderingKey{})
	r, _ := v.(rendering)
	return r
}

// awaits reports whether an [Errors] further out has an error to respond with.
func awaits(c *gin.Context) bool {
	return len(c.Errors) > 0 && !c.Writer.Written() && renderingOf(c) == pending
}

// respond responds with the last error, unless there is a response.
func respond(c *gin.Context) {
	if len(c.Errors) == 0 || c.Writer.Written() || renderingOf(c) == done {
		return
	}
	// If a middleware leaves the status of it alone, it is not Written further out.
	c.Set(renderingKey{}, done)
	usher.Fail(c.Writer, c.Request, failure(c))
}

// failure returns the error to respond with.
func failure(c *gin.Context) error {
	err := c.Errors.Last().Err
	if _, ok := errors.AsType[*usher.Error](err); !ok && c.Writer.Status() >= http.StatusBadRequest {
		err = &usher.Error{Status: c.Writer.Status(), Cause: err}
	}
	return err
}
