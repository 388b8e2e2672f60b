#!/bin/sh
# oras-java 0.2.15 (land.oras:oras-java-sdk) reads a challenge only as `Bearer realm="…",service="…",scope="…"`: in this order,
# with all three, and without a space after a comma. RFC 9110 (section 11.2) leaves the order and the spaces to the server. For
# any other form the call ends with "Invalid WWW-Authenticate header", before a token is asked for.
# A challenge of two scopes, which registries send where a blob is mounted (`scope="repository:a:pull,push repository:b:pull"`),
# is put into the URL as it is: "Illegal character in query", again without a request for a token.
# Seen: "order as usual: 1", "scope before service: 0 Invalid WWW-Authenticate header", "a space after a comma: 0 Invalid …",
# "two scopes: 0 Illegal character in query …"; the number is how often the token server was asked.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat > pom.xml <<'END'
<project>
  <modelVersion>4.0.0</modelVersion><groupId>finding</groupId><artifactId>finding</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>land.oras</groupId><artifactId>oras-java-sdk</artifactId><version>0.2.15</version></dependency>
  </dependencies>
</project>
END
mvn -q -B dependency:copy-dependencies -DoutputDirectory=jars >/dev/null
cat > Finding.java <<'END'
import com.sun.net.httpserver.*;
import java.net.InetSocketAddress;
import java.util.concurrent.atomic.AtomicInteger;
import land.oras.*;

public class Finding {
    static boolean holds = true;

    /** Lists tags where the challenge is what `form` says of realm, service and scope. */
    static void check(String name, String form, int asked, String error) throws Exception {
        var tokens = new AtomicInteger();
        var server = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
        var host = "127.0.0.1:" + server.getAddress().getPort();
        var challenge = "Bearer " + form.replace("REALM", "realm=\"http://" + host + "/token\"").replace("SERVICE", "service=\"s\"");
        server.createContext("/", call -> {
            var isToken = call.getRequestURI().getPath().equals("/token");
            if (isToken) tokens.incrementAndGet();
            var login = call.getRequestHeaders().getFirst("Authorization");
            var isOpen = isToken || "Bearer t".equals(login);
            if (!isOpen) call.getResponseHeaders().set("WWW-Authenticate", challenge);
            call.getResponseHeaders().set("Content-Type", "application/json");
            var body = (isToken ? "{\"token\":\"t\"}" : "{\"name\":\"a\",\"tags\":[\"v1\"]}").getBytes();
            call.sendResponseHeaders(isOpen ? 200 : 401, body.length);
            call.getResponseBody().write(body);
            call.close();
        });
        server.start();
        String said = "";
        try {
            Registry.builder().insecure(host, "user", "password").build().getTags(ContainerRef.parse(host + "/a"));
        } catch (RuntimeException failure) {
            said = (failure.getCause() == null ? failure : failure.getCause()).getMessage();
        }
        server.stop(0);
        System.out.println(name + ": " + tokens + " " + said);
        holds &= tokens.get() == asked && said.contains(error) && said.isEmpty() == error.isEmpty();
    }

    public static void main(String[] arguments) throws Exception {
        var scope = "scope=\"repository:a:pull\"";
        check("order as usual", "REALM,SERVICE," + scope, 1, "");
        check("scope before service", "REALM," + scope + ",SERVICE", 0, "Invalid WWW-Authenticate header");
        check("a space after a comma", "REALM, SERVICE, " + scope, 0, "Invalid WWW-Authenticate header");
        check("two scopes", "REALM,SERVICE,scope=\"repository:a:pull repository:b:pull\"", 0, "Illegal character in query");
        System.exit(holds ? 0 : 1);
    }
}
END
java -cp 'jars/*' Finding.java 2>/dev/null
