// Package adaptertest checks that usher's middlewares behave on a router as they do on
// net/http.
//
//	var router = adaptertest.Router{
//		Name:    "gin",
//		Handler: newGin, // builds what an adaptertest.App describes
//	}
//
//	func TestRouter(t *testing.T)    { adaptertest.Test(t, router) }
//	func TestAllocs(t *testing.T)    { adaptertest.TestAllocs(t, router) }
//
// A behaviour has an ID, such as "10.body": the number of its row in the table of all
// routers, and a word. It is checked over loopback TCP, with HTTP/1.1 and, where that
// makes sense, with HTTP/2. A Router declares where its framework differs, and why. The
// suite fails if a declared difference is not observed, so the table stays true.
// USHER_UPDATE=1 go test writes the files of Router.Declaration, and in this package the
// table of docs/routers.md.
//
// The package is a separate module because it links websocket libraries, which no program
// should have to link. It uses public packages only, so adapters in other repositories
// can use it for their tests.
package adaptertest
