package ushergin

import (
	"errors"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/usher-go/usher"
)

// PrincipalFrom returns the principal of the request, and whether there is one. It works
// whether or not gin.Engine.ContextWithFallback is set; [usher.PrincipalFrom] with c as
// the context works only if that is set.
func PrincipalFrom(c *gin.Context) (usher.Principal, bool) {
	return usher.PrincipalFrom(c.Request.Context())
}

// PathValues is a gin middleware that makes the parameters of the path available through
// [http.Request.PathValue], for middlewares and handlers of net/http. It costs two
// allocations.
func PathValues(c *gin.Context) {
	for _, p := range c.Params {
		c.Request.SetPathValue(p.Key, p.Value)
	}
}

// NoRoute responds with [usher.NotFound], for gin.Engine.NoRoute. Gin writes its own 404
// after the whole chain, so middlewares would see only the status.
func NoRoute(c *gin.Context) { usher.NotFound(c.Writer, c.Request) }

// NoMethod responds with [usher.MethodNotAllowed], for gin.Engine.NoMethod. Gin calls it
// only if Engine.HandleMethodNotAllowed is set, and sets Allow first.
func NoMethod(c *gin.Context) { usher.MethodNotAllowed(c.Writer, c.Request) }

// Errors is a gin middleware that responds for a handler that has left errors in c.Errors
// and has written nothing. It passes the last error to [usher.Fail]. The client sees the
// public part of an [*usher.Error]. Any other error is private: the status is the one that
// the handler has set, if that is the status of an error, else 500.
//
// Put Errors directly inside the envelope. Middlewares inside Errors still see the
// response: the innermost of those that have replaced the writer sees it before its next
// returns. So put a middleware that adds or changes errors after Context.Next inside
// those.
//
// Errors costs two allocations, for what it stores in c.
func Errors(c *gin.Context) {
	if renderingOf(c) != pending {
		c.Set(renderingKey{}, pending)
		defer func() {
			if renderingOf(c) == pending {
				c.Set(renderingKey{}, none)
			}
		}()
	}
	encoding := encodingOf(c)
	c.Next()
	respond(c, encoding)
}

// A rendering is the state of the response to an error in c.Errors.
type rendering uint8

const (
	none    rendering = iota // no Errors will respond with the error
	pending                  // an outer Errors will respond with it
	done                     // an Errors has responded with it
)

// renderingKey is the key of the rendering in a gin.Context.
type renderingKey struct{}

func renderingOf(c *gin.Context) rendering {
	v, _ := c.Get(renderingKey{})
	r, _ := v.(rendering)
	return r
}

// awaits reports whether an outer [Errors] has an error to respond with.
func awaits(c *gin.Context) bool {
	return len(c.Errors) > 0 && !c.Writer.Written() && renderingOf(c) == pending
}

// encodingOf returns the encoding that an outer compressor has announced.
func encodingOf(c *gin.Context) []string { return c.Writer.Header()["Content-Encoding"] }

// respond responds with the last error, unless there is a response. The encoding is that
// from before the rest of the chain: an inner compressor has ended, and what it has
// announced is not the encoding of this response.
func respond(c *gin.Context, encoding []string) {
	if len(c.Errors) == 0 || c.Writer.Written() || renderingOf(c) == done {
		return
	}
	// Outer writers are not Written if a middleware has passed on only the status.
	c.Set(renderingKey{}, done)
	if h := c.Writer.Header(); encoding == nil {
		delete(h, "Content-Encoding")
	} else {
		h["Content-Encoding"] = encoding
	}
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
