package exchange_test

import (
	"context"
	"errors"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"sync"
	"testing"

	"github.com/usher-go/usher/internal/exchange"
	"github.com/usher-go/usher/internal/race"
)

type key string

var (
	numbers = exchange.NewSlot[int]()
	texts   = exchange.NewSlot[string]()
)

func TestNewSlotPanicsWithoutPlaces(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("NewSlot did not panic")
		}
	}()
	for range 256 {
		exchange.NewSlot[int]()
	}
}

func TestEnterCopiesOnce(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r = r.WithContext(context.WithValue(r.Context(), key("outer"), 1))
	x, inner := exchange.Enter(r)
	if inner == r || exchange.From(inner.Context()) != x || exchange.From(r.Context()) != nil {
		t.Fatal("the exchange is not in a copy of the request")
	}
	again, same := exchange.Enter(inner)
	if again != x || same != inner {
		t.Error("the request was copied twice")
	}
	derived := context.WithValue(inner.Context(), key("inner"), 2)
	if exchange.From(derived) != x {
		t.Error("a derived context has lost the exchange")
	}
	if derived.Value(key("outer")) != 1 || derived.Value(key("inner")) != 2 || derived.Value(key("none")) != nil {
		t.Error("values of others are lost")
	}
}

func TestAttachKeepsCancellation(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var embedding struct {
		other int
		exchange.Carrier
	}
	r := embedding.Attach(httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil))
	cancel()
	if r.Context().Err() == nil {
		t.Error("the copy is not canceled")
	}
	if exchange.From(r.Context()) != &embedding.Exchange {
		t.Error("the request carries another exchange")
	}
}

func TestSlots(t *testing.T) {
	x, _ := exchange.Enter(httptest.NewRequest(http.MethodGet, "/", nil))
	if numbers.Load(x) != nil || texts.Load(x) != nil || exchange.Challenges.Load(x) != nil {
		t.Error("a slot is not empty")
	}
	number, text := 1, "text"
	numbers.Store(x, &number)
	texts.Store(x, &text)
	if numbers.Load(x) != &number || texts.Load(x) != &text || exchange.Challenges.Load(x) != nil {
		t.Error("a slot holds the value of another")
	}
	numbers.Store(x, nil)
	if numbers.Load(x) != nil || texts.Load(x) != &text {
		t.Error("a slot cannot be emptied alone")
	}
	if x.Failure() != 0 {
		t.Error("a new request has failed")
	}
	x.Failed(503)
	if x.Failure() != 503 {
		t.Errorf("failure %d", x.Failure())
	}
}

func TestTheZeroSlotHoldsNothing(t *testing.T) {
	x, _ := exchange.Enter(httptest.NewRequest(http.MethodGet, "/", nil))
	number := 1
	numbers.Store(x, &number)
	exchange.Responder.Store(x, new(any)) // the first of all slots
	if got := (exchange.Slot[int]{}).Load(x); got != nil {
		t.Errorf("int: got %d", *got)
	}
	if (exchange.Slot[any]{}).Load(x) != nil {
		t.Error("any: the zero slot shares the place of another")
	}
	defer func() {
		if recover() == nil {
			t.Error("storing in the zero slot lost the value without a panic")
		}
	}()
	(exchange.Slot[int]{}).Store(x, &number)
}

func TestServeCopiesBackWhatTheCopyHas(t *testing.T) {
	form := new(multipart.Form)
	for _, panics := range []bool{false, true} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		_, inner := exchange.Enter(r)
		func() {
			defer func() {
				if got := recover() != nil; got != panics {
					t.Errorf("panicked: %t, want %t", got, panics)
				}
			}()
			exchange.Serve(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				r.Pattern, r.MultipartForm = "GET /", form
				if panics {
					panic("handler")
				}
			}), httptest.NewRecorder(), r, inner)
		}()
		if r.Pattern != "GET /" || r.MultipartForm != form {
			t.Errorf("panics %t: the outer request has pattern %q and form %v", panics, r.Pattern, r.MultipartForm)
		}
		exchange.Leave(r, r)
		if r.Pattern != "GET /" || r.MultipartForm != form {
			t.Error("a request that was not copied lost its pattern or form")
		}
	}
}

func TestManyAtOnce(t *testing.T) {
	x, _ := exchange.Enter(httptest.NewRequest(http.MethodGet, "/", nil))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range uint8(100) {
				n := int(i)
				numbers.Store(x, &n)
				if *numbers.Load(x) > 100 {
					t.Error("a value was read that was never stored")
				}
				x.SetClient(exchange.Client{IPv6Bits: i})
				if x.Client().IPv6Bits > 100 {
					t.Error("what was read was never stored")
				}
				x.Failed(n)
				x.Failure()
				x.Value(key("k"))
			}
		})
	}
	wg.Wait()
}

func TestTheFirstReasonToBreakCounts(t *testing.T) {
	x, _ := exchange.Enter(httptest.NewRequest(http.MethodGet, "/", nil))
	if x.Broken() != nil {
		t.Error("a new request is broken")
	}
	first := errors.New("first")
	x.Break(first)
	x.Break(errors.New("second"))
	if !errors.Is(x.Broken(), first) {
		t.Errorf("got %v", x.Broken())
	}
}

func TestSlotAllocs(t *testing.T) {
	if race.Enabled {
		t.Skip("allocations cannot be counted under the race detector")
	}
	x, _ := exchange.Enter(httptest.NewRequest(http.MethodGet, "/", nil))
	number := 1
	if got := testing.AllocsPerRun(100, func() {
		numbers.Store(x, &number)
		numbers.Store(x, nil)
		numbers.Load(x)
	}); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

// With more, each request would pay for the next size class of the allocator, which is 704.
// The allocator adds 8 bytes.
func TestACarrierFitsItsSizeClass(t *testing.T) {
	if got := reflect.TypeFor[exchange.Carrier]().Size(); got > 640-8 {
		t.Errorf("%d bytes, want at most 632", got)
	}
}

func TestEnterAllocatesOnce(t *testing.T) {
	if race.Enabled {
		t.Skip("allocations cannot be counted under the race detector")
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	if got := testing.AllocsPerRun(100, func() { exchange.Enter(r) }); got != 1 {
		t.Errorf("%v allocations", got)
	}
}

// BenchmarkExchange measures what a stack of middlewares does with one request.
func BenchmarkExchange(b *testing.B) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	number, text := 1, "text"
	b.ReportAllocs()
	for b.Loop() {
		x, _ := exchange.Enter(r)
		numbers.Store(x, &number)
		texts.Store(x, &text)
		for range 5 {
			numbers.Load(x)
			texts.Load(x)
		}
	}
}

func TestClient(t *testing.T) {
	x, _ := exchange.Enter(httptest.NewRequest(http.MethodGet, "/", nil))
	if x.Client() != nil {
		t.Error("a new request has a client")
	}
	first := exchange.Client{Addr: netip.MustParseAddr("192.0.2.1"), IPv6Bits: 64}
	second := exchange.Client{Addr: netip.MustParseAddr("192.0.2.2"), IPv6Bits: 48, TLS: true}
	x.SetClient(first)
	before := x.Client()
	x.SetClient(second)
	if *before != first || *x.Client() != second {
		t.Errorf("got %v, then %v", *before, *x.Client())
	}
}
