package flux

import "testing"

func TestOwnLoginsAreSentToTheCloudOnly(t *testing.T) {
	t.Parallel()
	for endpoint, clouds := range map[string][2]bool{ // gcp, azure
		"":                                               {true, true},
		"storage.googleapis.com":                         {true, false},
		"https://storage.googleapis.com":                 {true, false},
		"http://storage.googleapis.com":                  {},
		"https://evil.example":                           {},
		"https://googleapis.com.evil.example":            {},
		"https://evilgoogleapis.com":                     {},
		"https://x@evil.example/?storage.googleapis.com": {},
		"https://storage.googleapis.com:8443":            {},
		"https://fleet.blob.core.windows.net":            {false, true},
		"https://fleet.blob.core.windows.net.evil":       {},
	} {
		for provider, want := range map[string]bool{"gcp": clouds[0], "azure": clouds[1]} {
			if b := ownEndpoint(Login{Provider: provider}, endpoint); (b == nil) != want {
				t.Errorf("%s at %q: %v", provider, endpoint, b)
			}
			if b := ownEndpoint(Login{Provider: provider, ServiceAccount: "x"}, endpoint); b != nil {
				t.Errorf("a service account at %q: %v", endpoint, b)
			}
		}
	}
	if b := ownLogin(Login{Provider: "gcp"}, map[string]bool{"spec.insecure": true}); b == nil || !b.stalled {
		t.Errorf("an own login over an unsafe connection: %v", b)
	}
	for name, b := range map[string]*blocked{
		"a safe connection":  ownLogin(Login{Provider: "gcp"}, map[string]bool{"spec.insecure": false}),
		"a service account":  ownLogin(Login{Provider: "gcp", ServiceAccount: "x"}, map[string]bool{"spec.insecure": true}),
		"no login":           ownLogin(Login{}, map[string]bool{"spec.insecure": true}),
		"an endpoint of AWS": ownEndpoint(Login{Provider: "aws"}, "s3.example.com"),
	} {
		if b != nil {
			t.Errorf("%s: %v", name, b)
		}
	}
}
