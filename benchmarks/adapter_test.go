package benchmarks_test

import (
	"errors"
	"net/http"
	"testing"

	"github.com/gin-gonic/gin"
	ginadapter "github.com/gwatts/gin-adapter"
	echo4 "github.com/labstack/echo/v4"
	"github.com/labstack/echo/v5"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/adapters/usherecho"
	"github.com/usher-go/usher/adapters/usherecho4"
	"github.com/usher-go/usher/adapters/ushergin"
)

// A through is a middleware that neither wraps the writer nor copies the request,
// so all that is measured is how it is called.
type through struct{ passed *int }

func (m through) ServeNext(w http.ResponseWriter, r *http.Request, next http.Handler) {
	*m.passed++
	next.ServeHTTP(w, r)
}

func (m through) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { m.ServeNext(w, r, next) })
}

// adapted is a router with a middleware, which must have been passed.
func adapted(build func(m usher.Middleware) http.Handler) contestant {
	return func(testing.TB) subject {
		m := through{new(int)}
		c := call{handler: build(m), request: get(), want: http.StatusOK}
		s := c.subject()
		check := s.check
		s.check = func() error {
			if err := check(); err != nil {
				return err
			}
			if *m.passed != 1 {
				return errors.New("the middleware was not passed")
			}
			return nil
		}
		return s
	}
}

var adapterWorks = suite{
	"Adapter/gin": {
		"gin-bare": serving(ginWith()),
		"native": adapted(func(m usher.Middleware) http.Handler {
			return ginWith(func(c *gin.Context) {
				*m.(through).passed++
				c.Next()
			})
		}),
		"usher":       adapted(func(m usher.Middleware) http.Handler { return ginWith(ushergin.Middleware(m)) }),
		"gin-adapter": adapted(func(m usher.Middleware) http.Handler { return ginWith(ginadapter.Wrap(m.Wrap)) }),
	},
	"Adapter/echo": {
		"echo-bare": serving(echoWith()),
		"native": adapted(func(m usher.Middleware) http.Handler {
			return echoWith(func(next echo.HandlerFunc) echo.HandlerFunc {
				return func(c *echo.Context) error {
					*m.(through).passed++
					return next(c)
				}
			})
		}),
		"usher":           adapted(func(m usher.Middleware) http.Handler { return echoWith(usherecho.Middleware(m)) }),
		"wrap-middleware": adapted(func(m usher.Middleware) http.Handler { return echoWith(echo.WrapMiddleware(m.Wrap)) }),
	},
	"Adapter/echo4": {
		"echo4-bare": serving(echo4With()),
		"native": adapted(func(m usher.Middleware) http.Handler {
			return echo4With(func(next echo4.HandlerFunc) echo4.HandlerFunc {
				return func(c echo4.Context) error {
					*m.(through).passed++
					return next(c)
				}
			})
		}),
		"usher":           adapted(func(m usher.Middleware) http.Handler { return echo4With(usherecho4.Middleware(m)) }),
		"wrap-middleware": adapted(func(m usher.Middleware) http.Handler { return echo4With(echo4.WrapMiddleware(m.Wrap)) }),
	},
}
