//! Requests and ranges, by the bodies of the fuzzer.

use proptest::prelude::*;
use registry_core::fuzzing;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_request_is_read_or_refused(
        method in "GET|HEAD|PUT|POST|PATCH|DELETE|OPTIONS",
        path in "/{1,2}v2(/(a|b__c|blobs|uploads|manifests|tags|list|referrers|latest|x(:|%3A)y|_catalog|\
                 0c9f3d8a-1c1d-4a4e-8f51-0b6a1d0c2e3f|%2e|[.-]|[.]{2}|é|)){0,5}",
        query in "[?]?((n|tag|last|mount|from|digest|digest-algorithm|artifactType|ns)=(a|x:y|7|%20|%26|[+]|sha512|é)?&?){0,4}",
        fields in "((range: bytes=[0-9]-[0-9]?|if-range: \"x:y\"|if-(none-)?match: ([*]|W/\"x:y\"|x:y|\"x:y\", \"z\")|\
                   content-range: [0-9]-[0-9]|content-length: [0-9]|content-type: a/b; c)\n){0,4}",
    ) {
        fuzzing::request(format!("{method} {path}{query}\n{fields}").as_bytes());
    }

    #[test]
    fn any_range_selects_what_is_there(
        text in "(bytes[= ])?((|[0-9]{1,2}|18446744073709551615)-(|[0-9]{1,2}|18446744073709551615)[,/ ]{0,2}){1,4}",
    ) {
        fuzzing::ranges(text.as_bytes());
    }

    #[test]
    fn any_forwarded(text in "([fF]or=|host=|proto=|\"|,|;|\\\\|\\[::1\\]|192.0.2.1|:80|unknown|[ -~]){0,12}") {
        fuzzing::forwarded(text.as_bytes());
    }

    #[test]
    fn any_bytes_will_do(bytes: Vec<u8>) {
        fuzzing::request(&bytes);
        fuzzing::ranges(&bytes);
        fuzzing::forwarded(&bytes);
    }
}
